"""What APScheduler finds due is collected here, and fired in batches.

One thread does all that the leader asks of the database beside its lease: it reads what is due,
decides (`leveret.schedules.decision`), fires (`scheduler.fire`), looks after slots that wait
(`scheduler.queue`), and keeps the job store fresh. So nothing of one process is fired twice at a
time, and what was due at the same moment goes into the same statement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import structlog
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job

from leveret import metrics
from leveret.errors import InvalidJob, LeveretError
from leveret.outbox.row import Entry, entry_of
from leveret.schedules.definition import Definition
from leveret.schedules.job import job_of
from leveret.schedules.policy import Overlap
from leveret.schedules.row import definition_of
from leveret.store.lease import Lease
from scheduler import queue, spans
from scheduler.bell import LONGEST_SECONDS, Bell
from scheduler.clock import DatabaseClock
from scheduler.fire import Fired, Plan, Verdict, fire
from scheduler.jobstore import ScheduleStore
from scheduler.leadership import Leadership
from scheduler.line import Line
from scheduler.plan import REASON_INVALID, plan_of
from scheduler.spans import Firing

__all__ = ["FiringExecutor"]

log = structlog.get_logger("leveret.scheduler")

#: Schedules, and slots, of one statement.
_BATCH_SCHEDULES = 500
_BATCH_SLOTS = 1000
_SWEEP_SECONDS = 1.0
#: What a sweep looks ahead: until the next one, and the one after it.
_HORIZON = timedelta(seconds=3)
_QUEUE_SECONDS = 1.0
_COUNT_SECONDS = 15.0
_BUSY = timedelta(milliseconds=200)
_LONGEST_DELAY = 1.0
_JOIN_SECONDS = 0.6

_READ = """\
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
SELECT clock.at, s.* FROM clock LEFT JOIN schedules AS s ON s.name = ANY(%(names)s)"""
_LOAD = """\
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
SELECT clock.at, s.name, s.next_due_at FROM clock
LEFT JOIN schedules AS s ON s.paused_at IS NULL AND s.next_due_at IS NOT NULL"""
_SWEEP = f"{_LOAD} AND s.next_due_at <= clock_timestamp() + %(horizon)s"
_REFRESH = """\
SELECT name, next_due_at FROM schedules WHERE paused_at IS NULL AND name = ANY(%(names)s)"""
_COUNT = """\
SELECT origin, CASE WHEN paused_at IS NOT NULL THEN 'paused'
    WHEN next_due_at IS NULL THEN 'ended' ELSE 'active' END AS state, count(*)
FROM schedules GROUP BY 1, 2"""
_SLOT_LABELS = ("fired", "skipped", "queued")


class FiringExecutor(BaseExecutor):  # type: ignore[misc]
    """Fires what is submitted, under one epoch of the lease, until it is shut down."""

    def __init__(
        self,
        line: Line,
        lease: Lease,
        leadership: Leadership,
        store: ScheduleStore,
        clock: DatabaseClock,
        *,
        max_body_bytes: int,
        lost: Callable[[], None],
    ) -> None:
        """Call ``lost`` when the database says that the lease is not ours any more."""
        super().__init__()
        self._line = line
        self._lease = lease
        self._leadership = leadership
        self._store = store
        self._clock = clock
        self._limit = max_body_bytes
        self._tell_lost = lost
        self._grace = 3 * lease.term
        self._bell = Bell()
        self._stopping = threading.Event()
        self._collecting = threading.Lock()
        #: Names, in the order in which they came.
        self._due: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._load_again = True
        self._paces = {
            step: _Pace(seconds, clock.elapsed)
            for step, seconds in (
                (self._sweep, _SWEEP_SECONDS),
                (self._fire_waiting, _QUEUE_SECONDS),
                (self._count, _COUNT_SECONDS),
            )
        }
        self._definitions: dict[str, tuple[int, Definition]] = {}
        #: Schedules that cannot be used, by the version of which it has been said.
        self._unusable: dict[str, int] = {}
        self._counted: set[tuple[str, str]] = set()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="fire", daemon=True)

    # ------------------------------------------------------------------------- for other threads

    def start(self, scheduler: Any, alias: str) -> None:
        """Begin; APScheduler calls it."""
        super().start(scheduler, alias)
        self._thread.start()

    def submit_job(self, job: Job, _run_times: Sequence[datetime]) -> None:
        """Take what is due; APScheduler calls it. The same twice, before it is fired, is once."""
        with self._collecting:
            self._due[job.id] = None
        self._bell.ring()

    def _do_submit_job(self, _job: Job, _run_times: Sequence[datetime]) -> None:
        raise NotImplementedError("submit_job does it all")

    def changed(self, name: str | None) -> None:
        """Look at a schedule's row again, since it may have changed; None for all of them."""
        with self._collecting:
            if name is None:
                self._load_again = True
            else:
                self._changed[name] = None
        self._bell.ring()

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002 - APScheduler's
        """End after the statement that is under way; one that hangs is cut off."""
        self._stopping.set()
        self._bell.ring()
        if wait and self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
            if self._thread.is_alive():
                self._line.cut()
                self._thread.join()

    # -------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._step()
                except psycopg.Error as error:
                    self._failed(error)
                except Exception as error:  # whatever it is, the next step starts from the table
                    log.exception("scheduler.fire_failed")
                    self._failed(error)
        finally:
            self._line.close()

    def _failed(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        if not self._failures:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            log.warning("scheduler.fire_database_lost", reason=reason)
        self._load_again = True
        self._failures = min(self._failures + 1, 8)
        self._bell.wait(min(_LONGEST_DELAY, 0.05 * 2.0**self._failures))

    def _step(self) -> None:
        if not self._leadership.holds():
            self._bell.wait(0.05)
            return
        with self._collecting:
            due, self._due = list(self._due), {}
            changed, self._changed = list(self._changed), {}
            load, self._load_again = self._load_again, False
        if load:
            self._load()
        elif changed:
            self._refresh(changed)
        if due:
            self._fire(due)
        for step, pace in self._paces.items():
            if pace.is_due() and not self._stopping.is_set():
                step()
                pace.done()
        if self._failures:
            log.warning("scheduler.fire_database_found")
            self._failures = 0
        if not (self._due or self._changed or self._load_again):
            self._bell.wait(min(pace.wait() for pace in self._paces.values()))

    # ------------------------------------------------------------------------------- the job store

    def _load(self) -> None:
        self._definitions.clear()
        self._store.replace(self._times(_LOAD))
        self._paces[self._sweep].done()

    def _sweep(self) -> None:
        self._store.merge(self._times(_SWEEP, horizon=_HORIZON))

    def _times(self, statement: str, **values: Any) -> dict[str, datetime]:
        asked = self._clock.elapsed()
        rows = self._line.run(statement, values)
        self._clock.observe(rows[0][0], asked)
        return {name: due for _, name, due in rows if name is not None}

    def _refresh(self, names: Sequence[str]) -> None:
        rows = self._line.run(_REFRESH, {"names": names})
        found: dict[str, datetime | None] = dict(rows)
        for name in names:
            self._store.set(name, found.get(name))

    def _count(self) -> None:
        seen = set()
        for origin, state, count in self._line.run(_COUNT):
            metrics.SCHEDULES.labels(origin, state).set(count)
            seen.add((origin, state))
        for gone in self._counted - seen:
            metrics.SCHEDULES.labels(*gone).set(0)
        self._counted = seen

    # ---------------------------------------------------------------------------------- the fire

    def _fire(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), _BATCH_SCHEDULES):
            plans = self._plan(names[start : start + _BATCH_SCHEDULES])
            for part in _parts(plans):
                self._send(part)

    def _read(self, names: Sequence[str]) -> tuple[datetime, dict[str, dict[str, Any]]]:
        asked = self._clock.elapsed()
        rows = self._line.mappings(_READ, {"names": names})
        now: datetime = rows[0]["at"]
        self._clock.observe(now, asked)
        return now, {row["name"]: row for row in rows if row["name"] is not None}

    def _plan(self, names: Sequence[str]) -> list[Plan]:
        """Read schedules and decide what becomes of each; those of which nothing does are set."""
        now, rows = self._read(names)
        plans: dict[str, tuple[Plan, Overlap]] = {}
        for name in names:
            row = rows.get(name)
            if row is None or row["paused_at"] is not None:
                self._store.set(name, None)
                self._definitions.pop(name, None)
                continue
            definition = self._definition(row)
            if definition is None:
                self._store.set(name, None)
                continue
            plan = plan_of(row, definition, now=now, grace=self._grace, max_body_bytes=self._limit)
            self._say_if_invalid(plan)
            if plan.slots or plan.next_due_at != row["next_due_at"]:
                plans[name] = plan, definition.overlap
            else:
                self._store.set(name, plan.next_due_at)
        return self._judged(plans)

    def _judged(self, plans: Mapping[str, tuple[Plan, Overlap]]) -> list[Plan]:
        strict = [
            name
            for name, (plan, overlap) in plans.items()
            if overlap is not Overlap.ALLOW and plan.due_at is not None
        ]
        ahead = queue.ahead(self._line, strict) if strict else {}
        return [
            replace(plan, slots=queue.judge(plan.slots, overlap, ahead[name]))
            if name in ahead
            else plan
            for name, (plan, overlap) in plans.items()
        ]

    def _definition(self, row: Mapping[str, Any]) -> Definition | None:
        name, version = row["name"], row["version"]
        known = self._definitions.get(name)
        if known is not None and known[0] == version:
            return known[1]
        try:
            definition = definition_of(row)
        except (LeveretError, ValueError, KeyError) as error:
            self._say_unusable(name, version, str(error))
            return None
        self._definitions[name] = version, definition
        return definition

    def _say_if_invalid(self, plan: Plan) -> None:
        if any(decided.reason == REASON_INVALID for decided in plan.slots):
            self._say_unusable(plan.name, plan.version, "its job breaks the wire contract")

    def _say_unusable(self, name: str, version: int, reason: str) -> None:
        if self._unusable.get(name) != version:
            self._unusable[name] = version
            log.error("scheduler.schedule_unusable", schedule=name, reason=reason[:300])

    def _send(self, plans: Sequence[Plan]) -> None:
        """Fire some plans; those that the database cannot take are found and left out."""
        if not self._leadership.holds():
            self._load_again = True  # the term may be renewed: what was under way is due still
            return
        if self._stopping.is_set():
            return
        try:
            fired = self.fire(plans)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
            if len(plans) == 1:
                self._say_unusable(plans[0].name, plans[0].version, str(error))
                return
            middle = len(plans) // 2
            self._send(plans[:middle])
            self._send(plans[middle:])
            return
        self._settle(plans, fired)

    def fire(self, plans: Sequence[Plan]) -> Fired:
        """Send the fire's statement."""
        return fire(self._line, self._lease.fence(self._leadership.epoch), plans)

    def _settle(self, plans: Sequence[Plan], fired: Fired) -> None:
        """Note what became of each plan."""
        if Verdict.STALE in fired.verdicts.values():
            self._refused()
            return
        for plan in plans:
            match fired.verdicts[plan.name]:
                case Verdict.DONE:
                    self._store.set(plan.name, plan.next_due_at)
                    for decided in plan.slots:
                        if decided.outcome == "fired" and decided.span is not None:
                            decided.span.end()
                case Verdict.BUSY:
                    self._store.set(plan.name, self._clock.now() + _BUSY)
                case Verdict.EARLY:
                    self._store.set(plan.name, plan.due_at)
                case _:
                    self._store.set(plan.name, self._clock.now())
        for name, outcome, reason, count, late in fired.slots:
            metrics.SCHEDULE_SLOTS.labels(name, outcome).inc(count)
            if outcome == "fired":
                metrics.SCHEDULE_LATENESS.observe(late)
            elif reason == "missed":
                metrics.SCHEDULE_MISSED.labels(name).inc(count)

    def _refused(self) -> None:
        log.warning(
            "scheduler.fire_refused",
            epoch=self._leadership.epoch,
            reason="the lease has ended, or is another's; nothing was published",
        )
        self._leadership.lose()
        self._tell_lost()

    # ------------------------------------------------------------------------- slots that wait

    def _fire_waiting(self) -> None:
        waiting = queue.waiting(self._line)
        if not waiting:
            return
        fence = self._lease.fence(self._leadership.epoch)
        queue.forget_removed(self._line, fence)
        ahead = queue.ahead(self._line, list(waiting))
        free = [name for name in waiting if not ahead[name].lives]
        now, rows = self._read(free) if free else (None, {})
        jobs: dict[tuple[str, datetime], Entry] = {}
        firings: dict[str, Firing | None] = {}
        for name, row in rows.items():
            definition = self._definition(row)
            if definition is not None and now is not None:
                with suppress(InvalidJob):  # said when its slot was decided on
                    slot = waiting[name]
                    job, span = spans.begin(job_of(definition, slot), slot, definition.due(slot))
                    jobs[name, slot] = entry_of(job, now=now.timestamp(), limit=self._limit)
                    firings[name] = span
        if jobs and self._leadership.holds():
            for name in queue.fire_queued(self._line, fence, jobs):
                metrics.SCHEDULE_SLOTS.labels(name, "fired").inc()
                if (firing := firings[name]) is not None:
                    firing.end()


class _Pace:
    """Whether it is time again, for one who looks often; whatever the clock does meanwhile."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last: float | None = None

    def is_due(self) -> bool:
        return self.wait() <= 0

    def done(self) -> None:
        self._last = self._clock()

    def wait(self) -> float:
        if self._last is None:
            return 0.0
        passed = self._clock() - self._last
        # Time that went backwards says that the clock was set.
        return 0.0 if passed < 0 else min(self._seconds - passed, LONGEST_SECONDS)


def _parts(plans: Sequence[Plan]) -> Iterator[Sequence[Plan]]:
    """Cut plans where the slots of one statement become too many."""
    start = slots = 0
    for index, plan in enumerate(plans):
        if slots and slots + len(plan.slots) > _BATCH_SLOTS:
            yield plans[start:index]
            start, slots = index, 0
        slots += len(plan.slots)
    if plans:
        yield plans[start:]
