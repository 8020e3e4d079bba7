"""The run: publish, watch what the broker reports, follow it up, until every job has its end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from queue import Empty
from typing import TYPE_CHECKING

from compose.demo import client
from compose.demo.book import Book, Letter, Note, Record
from compose.demo.errors import DemoError
from compose.demo.plan import Kind, Plan, Planned
from compose.demo.verdict import pid_of
from leveret import Job, Publisher

if TYPE_CHECKING:
    from compose.demo.clockwork import Clockwork
    from compose.demo.observer import Observer
    from compose.demo.pool import Pools
    from compose.demo.view import View

__all__ = ["Count", "Scenario", "State"]

_LOOK_SECONDS = 1.0


@dataclass
class Count:
    """How far one kind of work is."""

    total: int
    published: int = 0
    succeeded: int = 0
    dead: int = 0
    retries: int = 0


@dataclass
class State:
    """What a view shows."""

    began: float
    counts: dict[Kind, Count] = field(default_factory=dict)
    #: Jobs that wait in the broker, by queue.
    waiting: dict[str, int] = field(default_factory=dict)
    #: Jobs that wait in the delay wheel for their next attempt.
    in_wheel: int = 0

    @property
    def seconds(self) -> float:
        """How long the demonstration has been running."""
        return time.monotonic() - self.began


class Scenario:
    """One run on a broker that is prepared and workers that are started."""

    def __init__(
        self,
        plan: Plan,
        *,
        url: str,
        observer: Observer,
        pools: Pools,
        clockwork: Clockwork,
        view: View,
        state: State,
    ) -> None:
        self._plan = plan
        self._url = url
        self._observer = observer
        self._pools = pools
        self._clockwork = clockwork
        self._view = view
        self._state = state
        state.counts.update({kind: Count(plan.count(kind)) for kind in Kind})
        self._days_left: dict[int, int] = dict.fromkeys(plan.months, 0)
        for month, _ in plan.days:
            self._days_left[month] += 1
        self.book = Book(plan.run)
        #: What the broker has confirmed, by id.
        self.published: dict[str, Planned] = {}
        #: The worker that was killed on purpose.
        self.killed: str | None = None

    def run(self, *, timeout_seconds: float) -> bool:
        """Publish everything and follow it; tell whether every job came to its end in time."""
        deadline = time.monotonic() + timeout_seconds
        with Publisher(self._url, app_id="flights-demo") as publisher:
            odd = {planned.id: planned for planned in self._plan.odd()}
            plain = {planned.id: planned for planned in self._plan.images()} | odd
            for job in client.publish(self._url, (*odd.values(), *self._plan.images())):
                self._confirm(plain[job])
            self._publish(publisher, self._plan.daily())
            next_look = 0.0
            while not self._is_over():
                now = time.monotonic()
                if now >= deadline:
                    return False
                if now >= next_look:
                    self._pools.check()
                    if (news := self._clockwork.look()) is not None:
                        self._view.event(news)
                    next_look = now + _LOOK_SECONDS
                self._publish(publisher, self._follow(self._notes(0.1)))
                self._refresh()
        return True

    def unfinished(self) -> list[str]:
        """Return the jobs that have not come to their end."""
        return [job for job in self.published if not self.book[job].is_over]

    def _is_over(self) -> bool:
        return not self.unfinished() and self._clockwork.is_over

    def _publish(self, publisher: Publisher, jobs: Iterable[Planned]) -> None:
        wanted = {planned.id: planned for planned in jobs}
        if not wanted:
            return
        publisher.publish_many(
            Job(
                actor=planned.actor,
                arguments=planned.arguments,
                id=planned.id,
                queue=planned.queue,
            )
            for planned in wanted.values()
        )
        for planned in wanted.values():
            self._confirm(planned)
        self._refresh()

    def _confirm(self, planned: Planned) -> None:
        self.published[planned.id] = planned
        self._state.counts[planned.kind].published += 1

    def _notes(self, patience_seconds: float) -> list[Note]:
        """Return what the observer has found, after waiting for the first of it."""
        if self._observer.failure is not None:
            raise DemoError(
                f"the ledger cannot be read: {self._observer.failure!r}. Look at `make status`"
            )
        found: list[Note] = []
        try:
            found.append(self._observer.notes.get(timeout=patience_seconds))
            while True:
                found.append(self._observer.notes.get_nowait())
        except Empty:
            return found

    def _follow(self, notes: Iterable[Note]) -> list[Planned]:
        """Enter the notes in the book; return what is to be published because of them."""
        following: list[Planned] = []
        for note in notes:
            is_news = self.book.enter(note)
            job = note if isinstance(note, str) else note.job
            planned = self.published.get(job)
            if not is_news or planned is None:
                continue
            match note:
                case Letter():
                    self._state.counts[planned.kind].dead += 1
                    self._view.event(f"{planned.title}: dead letter, {note.reason}")
                case Record(event="succeeded"):
                    self._state.counts[planned.kind].succeeded += 1
                    following += self._after(planned, note)
                case Record(event="retrying"):
                    self._state.counts[planned.kind].retries += 1
                    self._view.event(self._retry(planned, note))
                case Record(event="quarantined"):
                    self._view.event(f"{planned.title}: quarantine, it runs alone from now on")
                case Record(event="started") if job == self._plan.year.id:
                    self._kill(note.worker)
        return following

    def _after(self, planned: Planned, record: Record) -> list[Planned]:
        result = record.result if isinstance(record.result, dict) else {}
        if planned.kind is Kind.DAY:
            month = int(planned.arguments["filter"]["month"])
            self._days_left[month] -= 1
            return [] if self._days_left[month] else [self._plan.report(month)]
        if planned.kind is Kind.REPORT:
            month = int(planned.arguments["parameters"]["month"])
            return list(self._plan.after_report(month, result))
        if planned.kind is Kind.YEAR and self.killed is not None:
            self._view.event(f"{planned.title}: done by process {pid_of(record.worker)}")
        return []

    def _kill(self, worker: str) -> None:
        """Kill the worker that runs the report of the year, the first time."""
        if self.killed is None and self._pools.kill(pid_of(worker)):
            self.killed = worker
            self._view.event(f"kill -9 {pid_of(worker)}, which runs the report of the year")

    def _retry(self, planned: Planned, record: Record) -> str:
        wait = max(0.0, (record.due_at or 0.0) - time.time())
        return f"{planned.title}: {_brief(record.error)}, again in {wait:.0f} s"

    def _refresh(self) -> None:
        now = time.time()
        state = self._state
        state.waiting = dict(self._observer.waiting)
        state.in_wheel = sum(
            not story.is_over and bool(story.retries) and max(story.retries.values()) > now
            for story in self.book.stories.values()
        )
        self._view.show(state)


def _brief(error: str | None) -> str:
    text = (error or "failed").removeprefix("127.0.0.1 answered ")
    return text if len(text) <= 60 else text[:59] + "…"
