"""Reading the ledger: lists of jobs, one job, its attempts, counts, workers.

Every function takes a synchronous SQLAlchemy connection. From asyncio, hand the function to the
connection: ``await connection.run_sync(query.jobs, JobFilter(actor="email.send"), limit=50)``.

**Pages.** Jobs are listed newest first, by ``(created_at, id)``. A page ends with a cursor, which
is the key of its last row; the next page begins behind it. No page is counted from the start, so
that the thousandth costs what the first does, and a job that arrives meanwhile moves none.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select, text, tuple_
from sqlalchemy.engine import Connection

from leveret.errors import LeveretError
from leveret.ledger.state import State
from leveret.store.identity import find_times
from leveret.store.schema import Attempt, JobRow, WorkerRow

__all__ = [
    "MAX_PAGE",
    "AttemptEntry",
    "Count",
    "InvalidCursor",
    "JobDetail",
    "JobFilter",
    "JobSummary",
    "Page",
    "WorkerEntry",
    "attempts",
    "counts",
    "job",
    "jobs",
    "oldest_waiting",
    "workers",
]

T = TypeVar("T")

#: The most rows of one page.
MAX_PAGE = 500


class InvalidCursor(LeveretError, ValueError):  # noqa: N818 - reads as a statement about the cursor
    """A cursor is not one that a page has ended with."""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs to list; what is empty or None does not narrow."""

    #: Any of these.
    states: frozenset[State] = frozenset()
    actor: str | None = None
    queue: str | None = None
    #: Created at or after this time.
    since: datetime | None = None
    #: Created before this time.
    until: datetime | None = None
    correlation_id: str | None = None
    idempotency_key: str | None = None
    job_id: str | None = None
    #: An id as somebody pasted it: of a job, or a correlation id, or an idempotency key.
    q: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """A job in a list."""

    id: str
    created_at: datetime
    #: None, like all that was published, as long as only an outcome of the job has been seen.
    actor: str | None
    queue: str | None
    state: State
    run: int
    attempt: int
    priority: int | None
    correlation_id: str | None
    idempotency_key: str | None
    published_at: datetime | None
    expires_at: datetime | None
    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    reason: str | None
    error_type: str | None
    error: str | None
    #: From 0 to 1.
    progress: float | None
    progress_note: str | None
    cancel_requested_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class JobDetail(JobSummary):
    """A job, with all that is known of it."""

    routing_key: str | None
    content_type: str | None
    #: The arguments, as they were published.
    body: bytes | None
    headers: dict[str, Any] | None
    app_id: str | None
    traceparent: str | None
    #: What the actor returned, as JSON text.
    result: bytes | None
    #: Why the result was not kept.
    result_lost: str | None
    progress_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AttemptEntry:
    """One run of an actor for a job, or a delivery that ended without one."""

    run: int
    attempt: int
    #: When it started; when it ended, if the actor never started.
    started_at: datetime
    #: None while it runs.
    ended_at: datetime | None
    worker: str | None
    queue: str | None
    #: running, succeeded, retrying, snoozed, dead, expired, cancelled, quarantined, abandoned.
    outcome: str
    #: When the next attempt was due.
    due_at: datetime | None
    reason: str | None
    error_type: str | None
    error: str | None
    traceback: str | None


@dataclass(frozen=True, kw_only=True)
class WorkerEntry:
    """A worker process, as its heartbeats describe it."""

    id: str
    queues: tuple[str, ...]
    threads: int
    #: Ids of the jobs that it runs.
    running: tuple[str, ...]
    first_seen_at: datetime
    seen_at: datetime
    #: When it was found to be gone.
    gone_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many; an estimate where counting would take long."""

    value: int
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some rows, and where to go on."""

    items: tuple[T, ...]
    #: The cursor of the next page; None when this is the last.
    next: str | None


_SUMMARY = tuple(getattr(JobRow, name) for name in JobSummary.__dataclass_fields__)
_DETAIL = tuple(getattr(JobRow, name) for name in JobDetail.__dataclass_fields__)


def jobs(
    connection: Connection, which: JobFilter, *, limit: int = 50, after: str | None = None
) -> Page[JobSummary]:
    """Return a page of jobs, newest first: the first one, or the one behind the cursor ``after``.

    ``limit`` is cut to `MAX_PAGE`. Raises `InvalidCursor`.
    """
    limit = max(1, min(limit, MAX_PAGE))
    rows = connection.execute(page_statement(which, limit=limit + 1, after=after)).all()
    shown = tuple(_summary(row) for row in rows[:limit])
    more = len(rows) > limit
    return Page(items=shown, next=_cursor(shown[-1].created_at, shown[-1].id) if more else None)


def page_statement(
    which: JobFilter, *, limit: int, after: str | None = None
) -> Select[tuple[Any, ...]]:
    """Return the statement that lists jobs."""
    statement = select(*_SUMMARY).where(*_conditions(which))
    if after is not None:
        created_at, job_id = _read_cursor(after)
        # The first condition says nothing new, but spares the partitions that are newer.
        statement = statement.where(
            JobRow.created_at <= created_at,
            tuple_(JobRow.created_at, JobRow.id) < tuple_(created_at, job_id),
        )
    return statement.order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)


def job(connection: Connection, job_id: str) -> JobDetail | None:
    """Return one job; None when the ledger does not know it (yet, or any more)."""
    created_at = find_times(connection, [job_id]).get(job_id)
    if created_at is None:
        return None
    row = connection.execute(
        select(*_DETAIL).where(JobRow.id == job_id, JobRow.created_at == created_at)
    ).first()
    if row is None:
        return None
    return JobDetail(**_values(row))


def attempts(connection: Connection, of: JobSummary) -> tuple[AttemptEntry, ...]:
    """Return what was tried for a job, oldest first."""
    fields = tuple(getattr(Attempt, name) for name in AttemptEntry.__dataclass_fields__)
    rows = connection.execute(
        select(*fields)
        .where(Attempt.job_id == of.id, Attempt.created_at == of.created_at)
        .order_by(Attempt.run, Attempt.attempt, Attempt.started_at)
    )
    return tuple(AttemptEntry(**row._mapping) for row in rows)  # noqa: SLF001 - its public name


def counts(connection: Connection) -> Mapping[State, Count]:
    """Return how many jobs are in each state."""
    rows = connection.execute(text("SELECT state, count(*) AS n FROM jobs GROUP BY state"))
    found = {State(row.state): Count(value=row.n, exact=True) for row in rows}
    return {state: found.get(state, Count(value=0, exact=True)) for state in State}


def oldest_waiting(connection: Connection) -> Mapping[str, datetime]:
    """Return, for each queue in which a job waits, when the oldest of them was created."""
    rows = connection.execute(
        text(
            "SELECT queue, min(created_at) AS oldest FROM jobs"
            " WHERE state = 'queued' AND queue IS NOT NULL GROUP BY queue"
        )
    )
    return {row.queue: row.oldest for row in rows}


def workers(connection: Connection, *, gone: bool = False) -> tuple[WorkerEntry, ...]:
    """Return the workers, by id; with ``gone``, also those that are gone."""
    fields = tuple(getattr(WorkerRow, name) for name in WorkerEntry.__dataclass_fields__)
    statement = select(*fields).order_by(WorkerRow.id)
    if not gone:
        statement = statement.where(WorkerRow.gone_at.is_(None))
    return tuple(
        WorkerEntry(
            **{**row._mapping, "queues": tuple(row.queues), "running": tuple(row.running)}  # noqa: SLF001
        )
        for row in connection.execute(statement)
    )


def _conditions(which: JobFilter) -> list[ColumnElement[bool]]:
    equal = {
        JobRow.actor: which.actor,
        JobRow.queue: which.queue,
        JobRow.correlation_id: which.correlation_id,
        JobRow.idempotency_key: which.idempotency_key,
        JobRow.id: which.job_id,
    }
    found: list[ColumnElement[bool]] = [
        column == value for column, value in equal.items() if value is not None
    ]
    if which.states:
        found.append(JobRow.state.in_(sorted(which.states)))
    if which.since is not None:
        found.append(JobRow.created_at >= which.since)
    if which.until is not None:
        found.append(JobRow.created_at < which.until)
    if which.q is not None:
        found.append(
            or_(
                JobRow.id == which.q,
                JobRow.correlation_id == which.q,
                JobRow.idempotency_key == which.q,
            )
        )
    return [and_(*found)] if found else []


def _summary(row: Row[Any]) -> JobSummary:
    return JobSummary(**_values(row))


def _values(row: Row[Any]) -> dict[str, Any]:
    return {**row._mapping, "state": State(row.state)}  # noqa: SLF001 - its public name


def _cursor(created_at: datetime, job_id: str) -> str:
    micros = (created_at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(json.dumps([micros, job_id]).encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        micros, job_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return _EPOCH + micros * _MICROSECOND, str(job_id)
    except (binascii.Error, ValueError, TypeError, OverflowError):
        raise InvalidCursor("the cursor is not one that a page has ended with") from None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution
