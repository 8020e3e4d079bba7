"""The schedules as APScheduler sees them: a job store over the table ``schedules``.

In memory there is of each schedule only its name and when it is next due, in a heap; what a
schedule is, is read when it fires. Memory is a cache and nothing else: it decides when somebody
looks, never what is published. So it may be behind. A schedule that was paused, changed or removed
without our hearing of it is looked at in vain; one that was made, or is now due earlier, is found
by the sweep, which reads whatever the table says is due soon.

APScheduler asks for what is due (`get_due_jobs`) and until when to wait (`get_next_run_time`).
What it hands to the executor is *under way*: it comes back with the time that the database has
noted as the next, and if it does not, because something failed, it is looked at once more.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore, JobLookupError
from apscheduler.triggers.base import BaseTrigger

from scheduler.bell import LONGEST_SECONDS
from scheduler.clock import DatabaseClock

__all__ = ["ScheduleStore"]

#: How long what was handed out may be under way before it is looked at again.
_UNDER_WAY = timedelta(seconds=5)
_LONGEST = timedelta(seconds=LONGEST_SECONDS)


class ScheduleStore(BaseJobStore):  # type: ignore[misc]
    """Names and times of schedules. Thread-safe."""

    def __init__(self, clock: DatabaseClock, *, earlier: Callable[[], None]) -> None:
        """Call ``earlier`` when something is due before what APScheduler was told last."""
        super().__init__()
        self._clock = clock
        self._earlier = earlier
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[datetime, int, str]] = []
        self._count = 0
        self._promised: datetime | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    # ----------------------------------------------------------------------- what the table says

    def replace(self, due: Mapping[str, datetime]) -> None:
        """Forget what was known: these are the schedules, and when each is due next."""
        with self._lock:
            self._entries.clear()
            self._heap.clear()
            for name, moment in due.items():
                self._put(name, moment)
        self._tell()

    def merge(self, due: Mapping[str, datetime]) -> None:
        """Learn what a sweep has found; what is under way is left to whom has it."""
        # Unless it was handed out by a clock that has been set back since.
        latest = self._clock.now() + _UNDER_WAY
        with self._lock:
            for name, moment in due.items():
                entry = self._entries.get(name)
                if entry is not None and entry.under_way and entry.due <= latest:
                    continue
                if entry is None or moment < entry.due:
                    self._put(name, moment)
        self._tell()

    def set(self, name: str, due: datetime | None) -> None:
        """Note when a schedule is due next; None when it is not, or gone."""
        with self._lock:
            if due is None:
                self._entries.pop(name, None)
            else:
                self._put(name, due)
        self._tell()

    def _put(self, name: str, due: datetime, *, under_way: bool = False) -> None:
        self._count += 1
        entry = self._entries.setdefault(name, _Entry())
        entry.due, entry.turn, entry.under_way = due, self._count, under_way
        heapq.heappush(self._heap, (due, self._count, name))
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._heap = [(e.due, e.turn, name) for name, e in self._entries.items()]
            heapq.heapify(self._heap)

    def _head(self) -> tuple[datetime, int, str] | None:
        """Return the earliest, dropping what has been superseded."""
        while self._heap:
            _, turn, name = self._heap[0]
            entry = self._entries.get(name)
            if entry is not None and entry.turn == turn:
                return self._heap[0]
            heapq.heappop(self._heap)
        return None

    def _tell(self) -> None:
        with self._lock:
            head = self._head()
            early = head is not None and self._promised is not None and head[0] < self._promised
        if early:
            self._earlier()

    # ------------------------------------------------------------------------ what APScheduler asks

    def get_due_jobs(self, now: datetime) -> list[Job]:
        """Return what is due; it is under way from then on."""
        jobs = []
        with self._lock:
            while (head := self._head()) is not None and head[0] <= now:
                due, _, name = head
                self._put(name, now + _UNDER_WAY, under_way=True)
                entry = self._entries[name]
                if entry.job is None:
                    entry.job = self._job(name)
                entry.job.next_run_time = self._clock.zone.at(due)
                jobs.append(entry.job)
        return jobs

    def get_next_run_time(self) -> datetime | None:
        """Return when to look again: when something is due, and in a second at the latest."""
        latest = self._clock.now() + _LONGEST
        with self._lock:
            head = self._head()
            self._promised = latest if head is None else min(head[0], latest)
            return self._clock.zone.at(self._promised)

    def update_job(self, job: Job) -> None:
        """Do nothing: what APScheduler hands out, it hands to the executor, who will tell."""

    def lookup_job(self, job_id: str) -> Job | None:
        """Return a schedule, as APScheduler sees it."""
        with self._lock:
            return None if job_id not in self._entries else self._job(job_id)

    def get_all_jobs(self) -> list[Job]:
        """Return all schedules, as APScheduler sees them."""
        with self._lock:
            ordered = sorted(self._entries, key=lambda name: self._entries[name].due)
            return [self._job(name) for name in ordered]

    def add_job(self, job: Job) -> None:
        """Refuse: schedules are made in the table."""
        raise NotImplementedError("schedules are made with `leveret.schedules.store`")

    def remove_job(self, job_id: str) -> None:
        """Forget a schedule; its row stays, and the next sweep may bring it back."""
        with self._lock:
            if self._entries.pop(job_id, None) is None:
                raise JobLookupError(job_id)

    def remove_all_jobs(self) -> None:
        """Forget all schedules; their rows stay."""
        self.replace({})

    def _job(self, name: str) -> Job:
        entry = self._entries[name]
        return Job(
            self._scheduler,
            id=name,
            name=name,
            func=_fired_by_the_executor,
            args=(),
            kwargs={},
            trigger=_UnderWay(),
            executor="default",
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
            next_run_time=self._clock.zone.at(entry.due),
        )


class _Entry:
    """What is known of one schedule."""

    __slots__ = ("due", "job", "turn", "under_way")

    due: datetime
    #: Which of the heap's items is this one's.
    turn: int
    under_way: bool
    job: Job | None

    def __init__(self) -> None:
        self.job = None


class _UnderWay(BaseTrigger):  # type: ignore[misc]
    """What APScheduler asks for the run after the one that it has just handed out.

    That is known when the fire has been committed, for then the database has noted it; until
    then the schedule is under way. Any answer but None will do, which would remove it.
    """

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """Return when to look again in any case."""
        return now + _UNDER_WAY


def _fired_by_the_executor() -> None:
    """Stand where APScheduler wants a function; `scheduler.executor` never calls it."""
