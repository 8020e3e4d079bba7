"""What a schedule did: its slots, newest first, each with the job that it became.

A slot's row stays when the schedule is gone, and so does its history. A page ends with a cursor,
the slot of its last row, so that the thousandth page costs what the first does. The state of a job
is looked up by its id and its time, which is the time of its slot (see `leveret.store.identity`):
one probe of one partition for each slot of a page, however many jobs there are.

The functions take a synchronous SQLAlchemy connection; from asyncio, hand them to
``connection.run_sync``. They only read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal_column, select, text
from sqlalchemy.engine import Connection

from leveret.ledger import State
from leveret.ledger.query import MAX_PAGE, InvalidCursor, Page
from leveret.store.identity import find_times
from leveret.store.schema import ScheduleSlot

__all__ = ["Cause", "Outcome", "Slot", "SlotFilter", "has_any", "page_statement", "slots"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Outcome(StrEnum):
    """What became of a slot."""

    #: Its job was published.
    FIRED = "fired"
    #: It was left out: missed, paused, or by the overlap policy.
    SKIPPED = "skipped"
    #: It waits for the job of an earlier one.
    QUEUED = "queued"


class Cause(StrEnum):
    """Why a slot was looked at."""

    #: It was due.
    SCHEDULE = "schedule"
    #: Somebody wanted a job now.
    RUN = "run"
    #: Somebody wanted what had been left out.
    BACKFILL = "backfill"
    #: An audit had found that it was missing.
    REPAIR = "repair"


@dataclass(frozen=True, kw_only=True)
class SlotFilter:
    """Which slots to list; what is empty or None does not narrow."""

    #: Any of these.
    outcomes: frozenset[Outcome] = frozenset()
    #: At this time or later; a range of slots counts that reaches it.
    since: datetime | None = None
    #: Before this time.
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One slot of a schedule, or a run of them that were left out for one reason."""

    schedule: str
    slot: datetime
    #: The last of a run of slots; None for a single one.
    until: datetime | None
    #: How many slots this is; None when they were too many to be counted.
    count: int | None
    #: When it was to be published: the slot, with its jitter.
    due_at: datetime
    #: When that was decided.
    fired_at: datetime
    outcome: Outcome
    #: Why it was left out, or waits.
    reason: str | None
    cause: Cause
    #: Who wanted it, if somebody did.
    asked_by: str | None
    #: Of the lease under which it was decided.
    epoch: int | None
    job_id: str | None
    #: Where the job stands; None while the ledger does not know it, or does not any more.
    job_state: State | None
    #: Why it is dead, cancelled or expired.
    job_reason: str | None
    job_started_at: datetime | None
    job_finished_at: datetime | None

    @property
    def lateness(self) -> timedelta | None:
        """How long after it was due the job was handed to the outbox; None if none was."""
        return self.fired_at - self.due_at if self.outcome is Outcome.FIRED else None


_COLUMNS = tuple(
    getattr(ScheduleSlot, name)
    for name in (
        "schedule",
        "slot",
        "until",
        "count",
        "due_at",
        "fired_at",
        "outcome",
        "reason",
        "cause",
        "asked_by",
        "epoch",
        "job_id",
    )
)
#: One probe for each job: the planner is not to read the ledger for a page of slots.
_JOBS = text(
    "SELECT j.* FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS k (id, time),"
    " LATERAL (SELECT id, state, reason, started_at, finished_at FROM jobs"
    "   WHERE jobs.id = k.id AND jobs.created_at = k.time LIMIT 1) AS j"
)


def slots(
    connection: Connection,
    schedule: str,
    which: SlotFilter | None = None,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page[Slot]:
    """Return a page of a schedule's slots, newest first: the first, or that behind a cursor.

    Empty for a name that never had one. ``limit`` is cut to `MAX_PAGE`. Raises `InvalidCursor`.
    """
    limit = max(1, min(limit, MAX_PAGE))
    statement = page_statement(schedule, which or SlotFilter(), limit=limit + 1, after=after)
    rows = connection.execute(statement).all()
    jobs = _jobs(connection, [row.job_id for row in rows[:limit] if row.job_id is not None])
    shown = tuple(_slot(row, jobs) for row in rows[:limit])
    return Page(items=shown, next=_cursor(shown[-1].slot) if len(rows) > limit else None)


def has_any(connection: Connection, schedule: str) -> bool:
    """Tell whether a schedule ever had a slot, as far as is kept."""
    wanted = select(ScheduleSlot.slot).where(ScheduleSlot.schedule == schedule).limit(1)
    return connection.execute(wanted).first() is not None


def page_statement(
    schedule: str, which: SlotFilter, *, limit: int, after: str | None = None
) -> Select[tuple[Any, ...]]:
    """Return the statement that lists slots. Raises `InvalidCursor`."""
    found: list[ColumnElement[bool]] = [ScheduleSlot.schedule == schedule]
    if which.until is not None:
        found.append(ScheduleSlot.slot < which.until)
    if after is not None:
        found.append(ScheduleSlot.slot < _read_cursor(after))
    if which.since is not None:
        found.append(ScheduleSlot.slot >= _first(schedule, which.since))
        found.append(func.coalesce(ScheduleSlot.until, ScheduleSlot.slot) >= which.since)
    if which.outcomes:
        found.append(ScheduleSlot.outcome.in_(sorted(which.outcomes)))
        if Outcome.FIRED not in which.outcomes:
            # Says nothing new, but that an index has just these.
            found.append(ScheduleSlot.outcome != literal_column("'fired'"))
    return select(*_COLUMNS).where(*found).order_by(ScheduleSlot.slot.desc()).limit(limit)


def _first(schedule: str, since: datetime) -> ColumnElement[datetime]:
    """Return the first slot that a list from a time on has: a run of slots may reach into it.

    Runs do not overlap, so that only the last one before that time can.
    """
    before = (
        select(ScheduleSlot.slot, ScheduleSlot.until)
        .where(
            ScheduleSlot.schedule == schedule,
            ScheduleSlot.slot < since,
            ScheduleSlot.until.is_not(None),
        )
        .order_by(ScheduleSlot.slot.desc())
        .limit(1)
        .subquery()
    )
    run = select(before.c.slot).where(before.c.until >= since).scalar_subquery()
    return func.coalesce(run, since)


def _jobs(connection: Connection, ids: list[str]) -> Mapping[str, Any]:
    times = find_times(connection, ids)
    if not times:
        return {}
    values = {"ids": list(times), "times": list(times.values())}
    return {row.id: row for row in connection.execute(_JOBS, values)}


def _slot(row: Any, jobs: Mapping[str, Any]) -> Slot:
    job = jobs.get(row.job_id)
    known = dict(row._mapping)  # noqa: SLF001 - its public name
    return Slot(
        **known
        | {
            "outcome": Outcome(row.outcome),
            "cause": Cause(row.cause),
            "job_state": None if job is None else State(job.state),
            "job_reason": None if job is None else job.reason,
            "job_started_at": None if job is None else job.started_at,
            "job_finished_at": None if job is None else job.finished_at,
        }
    )


def _cursor(slot: datetime) -> str:
    micros = (slot - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(str(micros).encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> datetime:
    try:
        micros = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return _EPOCH + micros * _MICROSECOND
    except (binascii.Error, ValueError, OverflowError):
        raise InvalidCursor("the cursor is not one that a page has ended with") from None
