"""Reading the ledger: lists of jobs, one job, its attempts, counts, workers.

Every function takes a synchronous SQLAlchemy connection. From asyncio, hand the function to the
connection: ``await connection.run_sync(query.jobs, JobFilter(actor="email.send"), limit=50)``.

**Pages.** Jobs are listed newest first, by ``(created_at, id)``. A page ends with a cursor, which
is the key of its last row; the next page begins behind it. No page is counted from the start, so
that the thousandth costs what the first does, and a job that arrives meanwhile moves none.

**Any filter.** Two indexes, ``(queue, state, …)`` and ``(actor, queue, state, …)``, each ending in
the order of a page, answer every combination of the three. What is not asked for is filled in with
every value that there is: all states, and the queues, which a loose index scan finds. For each of
these combinations, one `LATERAL` subquery reads at most a page; they are merged.

There is no index of all jobs in the order of time, on purpose: the planner would walk it, job by
job, in the hope of meeting soon what may not be there, such as one of the three dead jobs in a
million that no sample has seen. So a list without a filter is merged, too, and a page never reads
more than its length for each combination. That is some thousand buffers at worst. Only within a
correlation id or an idempotency key are the other conditions looked up row by row.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    FromClause,
    Row,
    Select,
    Text,
    false,
    func,
    literal,
    literal_column,
    select,
    text,
    true,
    tuple_,
    union,
)
from sqlalchemy.engine import Connection

from leveret.errors import LeveretError
from leveret.ledger.state import State
from leveret.store.identity import find_times
from leveret.store.schema import QUEUE, Attempt, JobRow, WorkerRow

__all__ = [
    "COUNTED",
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
    "page_statement",
    "workers",
]

T = TypeVar("T")

#: The most rows of one page.
MAX_PAGE = 200
#: The most jobs of one queue and state that `counts` counts.
COUNTED = 1000


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
    #: Where that is kept, if it is large: a path below ``LEVERET_RESULT_STORE``.
    result_ref: str | None
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
    """Return the statement that lists jobs. Raises `InvalidCursor`."""
    window = _window(which, after)
    if which.q is not None:
        readings = _readings(replace(which, q=None), which.q)
        pages = [page_statement(each, limit=limit, after=after) for each in readings]
        if not pages:
            return _page([false()], limit)
        found = union(*(select(page.subquery()) for page in pages)).subquery()
        return select(found).order_by(found.c.created_at.desc(), found.c.id.desc()).limit(limit)
    if which.job_id is not None or which.idempotency_key is not None:
        return _page([*_equal(which), *window], limit)
    asked = [*_equal(replace(which, states=frozenset())), *window]
    states = _each("state", sorted(which.states) or list(State))
    if which.correlation_id is not None or which.queue is not None:
        return _merged([states], asked, limit)
    return _merged([_queues(which.actor), states], asked, limit)


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
    """Return how many jobs are in each state.

    Up to `COUNTED` of a queue and a state are counted; where there are more, the number is what
    PostgreSQL estimated when it last analysed the partitions.
    """
    rows = connection.execute(_COUNTS, {"states": list(State), "bound": COUNTED}).all()
    known = {State(row.state): Count(value=row.counted, exact=row.exact) for row in rows}
    if not all(count.exact for count in known.values()):
        guesses = {row.state: int(row.estimate) for row in connection.execute(_ESTIMATES)}
        for state, count in known.items():
            if not count.exact:
                guess = guesses.get(state, 0)
                known[state] = Count(value=max(count.value, guess), exact=False)
    return {state: known.get(state, Count(value=0, exact=True)) for state in State}


def oldest_waiting(
    connection: Connection, queues: Mapping[str, str] | None = None
) -> Mapping[str, datetime]:
    """Return, for each queue in which a job waits, when the oldest of them was created.

    A job that was published for any queue has none in the ledger until a worker has it: ``queues``
    says to which the routing leads it, by its actor.
    """
    found: dict[str, datetime] = {row.queue: row.oldest for row in connection.execute(_OLDEST)}
    if queues:
        for row in connection.execute(_OLDEST_OF_ACTORS, {"actors": list(queues)}):
            queue = queues[row.actor]
            found[queue] = min(found.get(queue, row.oldest), row.oldest)
    return found


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


# ----------------------------------------------------------------------------------- statements

_Conditions = list[ColumnElement[bool]]

_QUEUE: ColumnElement[str] = literal_column(QUEUE, Text)
#: Every queue that a job has, with a step through an index for each; empty where it is not known.
_LOOSE = f"""
    WITH RECURSIVE found (queue) AS (
        SELECT ''
        UNION ALL
        SELECT (
            SELECT {QUEUE} FROM jobs WHERE {QUEUE} > found.queue ORDER BY {QUEUE} LIMIT 1
        )
        FROM found WHERE found.queue IS NOT NULL
    ),
    queues (queue) AS (
        SELECT queue FROM unnest(ARRAY(SELECT found.queue FROM found)) AS q (queue)
        WHERE queue >= ''
    )
"""  # noqa: S608 - constants
_COUNTS = text(
    f"""{_LOOSE}
    SELECT s.state, sum(c.n)::bigint AS counted, bool_and(c.n < :bound) AS exact
    FROM queues, unnest(CAST(:states AS text[])) AS s (state), LATERAL (
        SELECT count(*) AS n FROM (
            SELECT FROM jobs
            WHERE {QUEUE} = queues.queue AND state = s.state LIMIT :bound
        ) AS bounded
    ) AS c
    WHERE s.state >= '' GROUP BY s.state
    """  # noqa: S608 - constants
)
_ESTIMATES = text(
    """
    SELECT v.state, sum(c.reltuples * v.share) AS estimate
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid AND c.reltuples > 0
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_stats AS p
        ON p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = 'state',
    unnest(p.most_common_vals::text::text[], p.most_common_freqs) AS v (state, share)
    WHERE i.inhparent = to_regclass('jobs') GROUP BY v.state
    """
)
_OLDEST = text(
    f"""{_LOOSE}
    SELECT queues.queue, j.created_at AS oldest
    FROM queues, unnest(ARRAY['queued']) AS s (state), LATERAL (
        SELECT created_at FROM jobs
        WHERE {QUEUE} = queues.queue AND state = s.state
        ORDER BY created_at, id LIMIT 1
    ) AS j
    WHERE queues.queue <> ''
    """  # noqa: S608 - constants
)
_OLDEST_OF_ACTORS = text(
    f"""
    SELECT a.actor, j.created_at AS oldest
    FROM unnest(CAST(:actors AS text[])) AS a (actor), unnest(ARRAY['queued']) AS s (state),
    LATERAL (
        SELECT created_at FROM jobs
        WHERE actor = a.actor AND {QUEUE} = '' AND state = s.state
        ORDER BY created_at, id LIMIT 1
    ) AS j
    """  # noqa: S608 - constants
)


def _window(which: JobFilter, after: str | None) -> _Conditions:
    found: _Conditions = []
    if which.since is not None:
        found.append(JobRow.created_at >= which.since)
    if which.until is not None:
        found.append(JobRow.created_at < which.until)
    if after is not None:
        created_at, job_id = _read_cursor(after)
        # The first condition says nothing new, but spares the partitions that are newer.
        found.append(JobRow.created_at <= created_at)
        found.append(tuple_(JobRow.created_at, JobRow.id) < tuple_(created_at, job_id))
    return found


def _equal(which: JobFilter) -> _Conditions:
    asked = {
        JobRow.id: which.job_id,
        JobRow.correlation_id: which.correlation_id,
        JobRow.idempotency_key: which.idempotency_key,
        JobRow.actor: which.actor,
        _QUEUE: which.queue,
    }
    found: _Conditions = [column == value for column, value in asked.items() if value is not None]
    if which.states:
        found.append(JobRow.state.in_(sorted(which.states)))
    return found


def _readings(which: JobFilter, q: str) -> list[JobFilter]:
    """Return what a pasted id may mean, together with the rest of a filter."""
    readings = {
        "job_id": replace(which, job_id=q),
        "correlation_id": replace(which, correlation_id=q),
        "idempotency_key": replace(which, idempotency_key=q),
    }
    return [reading for name, reading in readings.items() if getattr(which, name) in {None, q}]


def _page(conditions: _Conditions, limit: int) -> Select[tuple[Any, ...]]:
    return (
        select(*_SUMMARY)
        .where(*conditions)
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(limit)
    )


def _merged(
    values: list[FromClause], conditions: _Conditions, limit: int
) -> Select[tuple[Any, ...]]:
    """Return a page of the jobs that have a combination of some values: a queue, a state."""
    joined = values[0]
    for more in values[1:]:
        joined = joined.join(more, true())
    columns: dict[str, ColumnElement[Any]] = {
        column.name: column for table in values for column in table.c
    }
    # The condition says nothing new. The planner expects ten values of everything, and would think
    # the whole worth half a second of compiling; so he expects one.
    combined = select(*columns.values()).select_from(joined)
    combined = combined.where(*(column >= "" for column in columns.values()))
    wanted = combined.subquery("wanted")
    matching = [JobRow.state == wanted.c.state]
    if "queue" in columns:
        matching.append(wanted.c.queue == _QUEUE)
    page = _page([*conditions, *matching], limit).correlate(wanted).lateral("page")
    return (
        select(page)
        .select_from(wanted.join(page, true()))
        .order_by(page.c.created_at.desc(), page.c.id.desc())
        .limit(limit)
    )


def _each(name: str, values: Sequence[str]) -> FromClause:
    array = literal([str(value) for value in values], ARRAY(Text))
    return func.unnest(array).table_valued(name).render_derived(name=f"{name}s")


def _queues(actor: str | None) -> FromClause:
    """Return the queues of all jobs, or of an actor's, with a step through an index for each."""
    of: _Conditions = [] if actor is None else [JobRow.actor == actor]
    # The empty one stands for those whose queue is not known.
    found = select(literal("", Text).label("queue")).cte("found", recursive=True)
    following = (
        select(_QUEUE)
        .select_from(JobRow)
        .where(*of, found.c.queue < _QUEUE)
        .order_by(_QUEUE)
        .limit(1)
        .correlate(found)
        .scalar_subquery()
    )
    found = found.union_all(select(following).where(found.c.queue.is_not(None)))
    each = select(found.c.queue).where(found.c.queue.is_not(None)).scalar_subquery()
    return func.unnest(func.array(each)).table_valued("queue").render_derived(name="queues")


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
        created_at = _EPOCH + micros * _MICROSECOND
    except (binascii.Error, ValueError, TypeError, OverflowError):
        job_id = None
    if not isinstance(job_id, str) or "\0" in job_id:
        raise InvalidCursor("the cursor is not one that a page has ended with")
    return created_at, job_id


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution
