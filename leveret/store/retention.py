"""Forgetting: days that are over are dropped, and what else has had its time is deleted.

**A day** is dropped as a whole, `DROP` instead of `DELETE`, without a lock that anybody would wait
for. For each day whose jobs are all older than is kept:

1. Jobs that still live are filed anew, under the present time: a job may be scheduled for months
   ahead, or be retried for weeks. ``job_ids`` says where a job is from then on, so later events
   find it (see `leveret.store.identity`). Attempts move with their job.
2. The partitions are detached with ``CONCURRENTLY``, which waits, holding nothing, for those who
   read or write the ledger at the moment. When they take too long, this is put off: the day is
   marked and invisible already, and the next round finishes it.
3. A recorder that had looked up a job before step 1 may have written about it after. Nobody can
   any more; so what has come meanwhile is merged into the jobs where they are now.
4. The tables are dropped.

Whatever kills the process: the next round finds what there is, and goes on from there.

**Everything else** is deleted by a condition of each table, in small transactions.

**Who does it**: the schedule ``leveret.retain``, once a day, in a worker (`run_daily`). The row
``retention`` of ``leases`` says until when nobody else needs to. When that has passed, because no
scheduler or worker has done it for well over a day, a relay does (`run_if_overdue`).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import structlog
from psycopg import errors
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from leveret.store import partition
from leveret.store.exclusive import alone
from leveret.store.schema import Attempt, JobRow

__all__ = ["KEEP", "SWEPT", "Report", "run", "run_daily", "run_if_overdue", "sweep"]

log = structlog.get_logger("leveret.retention")

#: How long jobs are kept, unless the caller says.
KEEP = timedelta(days=30)
#: How long to wait for those who use a day's partition. Waiting to detach is in nobody's way …
_DETACH_SECONDS = 60.0
#: … but waiting to finish what was put off keeps new partitions from being made.
_FINALIZE_SECONDS = 3.0
#: After the beginning of a round, others leave it to the schedule for so long.
_PATIENCE = timedelta(hours=30)
#: Rows in one transaction.
_BATCH = 1000
#: How long a round may take before another process believes that it has died.
_TERM = timedelta(hours=1)
#: Tables whose rows say themselves when they may be forgotten, and have an index on that.
SWEPT = ("claims", "unique_jobs", "idempotent_requests", "watches")
#: The advisory lock under which one process cleans up.
_LOCK = 0x6C657672  # "levr"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a round has done, or, of a dry run, what it would do."""

    #: The days whose jobs and attempts were dropped.
    days: tuple[date, ...] = ()
    #: Days that are dropped in a later round, since somebody reads for so long.
    postponed: tuple[date, ...] = ()
    #: Jobs that were filed anew, because they live.
    refiled: int = 0
    #: Rows that were deleted, by table.
    deleted: dict[str, int] = field(default_factory=dict)
    #: Another process is at it: nothing was done.
    busy: bool = False


def run(
    engine: Engine,
    *,
    keep: timedelta = KEEP,
    now: datetime | None = None,
    dry_run: bool = False,
) -> Report:
    """Drop and delete what is older than ``keep``; make the partitions of the days to come.

    Works beside everything else, and one process at a time does it. ``now`` is for tests.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    cutoff = now - keep
    if dry_run:
        return _look(engine, cutoff)
    with alone(engine, _LOCK) as lucky:
        if not lucky:
            return Report(busy=True)
        with engine.begin() as connection:
            partition.ensure(connection, now=now)
        days: list[date] = []
        postponed: list[date] = []
        refiled = 0
        with engine.connect() as connection:
            expired = _expired(connection, cutoff)
        for day in expired:
            moved, dropped = _drop(engine, day, now)
            refiled += moved
            (days if dropped else postponed).append(day)
        return Report(
            days=tuple(days),
            postponed=tuple(postponed),
            refiled=refiled,
            deleted={table: _purge(engine, table, cutoff, now) for table in _PURGED},
        )


def run_daily(engine: Engine, *, keep: timedelta = KEEP) -> Report:
    """Do the day's round, and write down that it was done."""
    return _round(engine, _TAKE, keep) or Report(busy=True)


def run_if_overdue(engine: Engine, *, keep: timedelta = KEEP) -> Report | None:
    """Do a round if nobody has for `_PATIENCE`; return None when that is not so.

    Cheap, so that a long-running process may ask every few minutes. When a round fails or its
    process dies, another is due an hour after it began. In a database that is new, time counts
    from when it is first asked.
    """
    with engine.begin() as connection:
        if connection.scalar(_FIRST, {"holder": _holder(), "term": _PATIENCE}) is not None:
            return None
    return _round(engine, _TAKE_OVER, keep)


def sweep(
    engine: Engine, *, tables: Collection[str] = SWEPT, now: datetime | None = None
) -> dict[str, int]:
    """Delete what says itself when it may be forgotten, by indexes; return how many rows.

    Works beside everything else, also beside a round. ``now`` is for tests.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    return {table: _purge(engine, table, now, now) for table in tables}


def _round(engine: Engine, take: TextClause, keep: timedelta) -> Report | None:
    holder = _holder()
    with engine.begin() as connection:
        epoch = connection.scalar(take, {"holder": holder, "term": _TERM})
    if epoch is None:
        return None
    report = run(engine, keep=keep)
    if not report.busy:
        log.info(
            "retention.done",
            days=[day.isoformat() for day in report.days],
            postponed=[day.isoformat() for day in report.postponed],
            refiled=report.refiled,
            deleted={table: count for table, count in report.deleted.items() if count},
        )
        with engine.begin() as connection:
            connection.execute(_DONE, {"holder": holder, "epoch": epoch, "patience": _PATIENCE})
    return report


def _holder() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


_FIRST = text(
    "INSERT INTO leases (name, holder, epoch, acquired_at, expires_at)"
    " VALUES ('retention', :holder, 0, now(), now() + :term)"
    " ON CONFLICT (name) DO NOTHING RETURNING epoch"
)
_TAKE = text(
    "INSERT INTO leases AS l (name, holder, epoch, acquired_at, expires_at)"
    " VALUES ('retention', :holder, 1, now(), now() + :term)"
    " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, epoch = l.epoch + 1,"
    " acquired_at = excluded.acquired_at,"
    " expires_at = greatest(l.expires_at, excluded.expires_at) RETURNING epoch"
)
_TAKE_OVER = text(
    "UPDATE leases SET holder = :holder, epoch = epoch + 1, acquired_at = now(),"
    " expires_at = now() + :term WHERE name = 'retention' AND expires_at <= now() RETURNING epoch"
)
_DONE = text(
    "UPDATE leases SET expires_at = acquired_at + :patience"
    " WHERE name = 'retention' AND holder = :holder AND epoch = :epoch"
)


# ------------------------------------------------------------------------------------- whole days

_TABLES = text(
    "SELECT c.relname AS name, i.inhrelid IS NOT NULL AS attached,"
    " coalesce(i.inhdetachpending, false) AS pending"
    " FROM pg_class AS c LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid"
    " WHERE c.relkind = 'r' AND c.relname ~ '^(jobs|attempts)_p[0-9]{8}$'"
    " AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('jobs'))"
)


def _tables(connection: Connection) -> dict[str, tuple[bool, bool]]:
    """Return all partitions, also detached ones: whether attached, and whether half detached."""
    return {row.name: (row.attached, row.pending) for row in connection.execute(_TABLES)}


def _expired(connection: Connection, cutoff: datetime) -> list[date]:
    """Return the days to drop, first those that are half detached: they are in the way."""
    pending: dict[date, bool] = {}
    for name, (_, half) in _tables(connection).items():
        day = partition.day_of(name)
        if day is not None and _end(day) <= cutoff:
            pending[day] = half or pending.get(day, False)
    return sorted(pending, key=lambda day: (not pending[day], day))


def _end(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC) + timedelta(days=1)


def _drop(engine: Engine, day: date, now: datetime) -> tuple[int, bool]:
    """Drop a day; return how many jobs were filed anew, and whether it is gone."""
    jobs, attempts = (partition.name_of(table, day) for table in partition.PARTITIONED)
    with engine.connect() as connection:
        tables = _tables(connection)
    refiled = 0
    if jobs in tables and not tables[jobs][1]:
        refiled = _refile(engine, day, now)
    for parent, name in zip(partition.PARTITIONED, (jobs, attempts), strict=True):
        attached, pending = tables.get(name, (False, False))
        if attached and not _detach(engine, parent, name, pending=pending):
            return refiled, False
    if jobs in tables:
        refiled += _refile(engine, day, now)
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {attempts}, {jobs}"))
    return refiled, True


def _detach(engine: Engine, parent: str, name: str, *, pending: bool) -> bool:
    """Detach a partition without being in anybody's way; tell whether that is done."""
    how = "FINALIZE" if pending else "CONCURRENTLY"
    seconds = _FINALIZE_SECONDS if pending else _DETACH_SECONDS
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            with _no_longer_than(seconds, connection):
                connection.execute(text(f"ALTER TABLE {parent} DETACH PARTITION {name} {how}"))
        except DBAPIError as error:
            # Cancelled by us, or another partition of the table waits to be finished first.
            expected = errors.QueryCanceled | errors.ObjectNotInPrerequisiteState
            if not isinstance(error.orig, expected | errors.LockNotAvailable):
                raise
            return False
    return True


@contextmanager
def _no_longer_than(seconds: float, connection: Connection) -> Iterator[None]:
    """Cancel what runs after some time; ``SET`` would outlive the statement behind PgBouncer."""
    raw: Any = connection.connection.driver_connection
    timer = threading.Timer(seconds, raw.cancel)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


_COLUMNS = [column.name for column in JobRow.__table__.columns]
_KEY = ("id", "created_at")
_CONTENT = [name for name in _COLUMNS[: _COLUMNS.index("state")] if name not in _KEY]
_STANDING = _COLUMNS[_COLUMNS.index("state") :]
_NEWER = (
    "(excluded.run, excluded.settled, excluded.attempt, excluded.event_at, excluded.kind)"
    " > (jobs.run, jobs.settled, jobs.attempt, jobs.event_at, jobs.kind)"
)
_MERGED = ", ".join(
    [
        *(f"{name} = coalesce(jobs.{name}, excluded.{name})" for name in _CONTENT),
        *(
            f"{name} = CASE WHEN {_NEWER} THEN excluded.{name} ELSE jobs.{name} END"
            for name in _STANDING
        ),
    ]
)
_ATTEMPT = [column.name for column in Attempt.__table__.columns if column.name != "created_at"]
#: What lives, and what has been filed anew already.
_MOVABLE = (
    "(r.state IN ('scheduled', 'queued', 'running', 'retrying') OR EXISTS (SELECT FROM job_ids AS k"
    " WHERE k.id = r.id AND (k.created_at < :start OR k.created_at >= :end)))"
)
_FILE = text(
    "INSERT INTO job_ids AS k (id, created_at) SELECT unnest(CAST(:ids AS text[])), :now"
    " ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at"
    " WHERE k.created_at >= :start AND k.created_at < :end"
)
_LETTERS = text(
    "UPDATE dead_letters AS d SET job_created_at = k.created_at FROM job_ids AS k"
    " WHERE k.id = ANY(:ids) AND d.job_id = k.id AND d.job_created_at <> k.created_at"
)


def _refile(engine: Engine, day: date, now: datetime) -> int:
    """Move the jobs of a day that live to where the present ones are; return how many."""
    jobs, attempts = (partition.name_of(table, day) for table in partition.PARTITIONED)
    window = {"start": _end(day) - timedelta(days=1), "end": _end(day)}
    find = text(
        f"SELECT id FROM {jobs} AS r WHERE {_MOVABLE}"  # noqa: S608 - constants
        f" ORDER BY id LIMIT {_BATCH} FOR UPDATE"
    )
    move = text(
        f"INSERT INTO jobs (id, created_at, {', '.join(_CONTENT + _STANDING)})"  # noqa: S608
        f" SELECT r.id, k.created_at, {', '.join(f'r.{name}' for name in _CONTENT + _STANDING)}"
        f" FROM {jobs} AS r JOIN job_ids AS k ON k.id = r.id WHERE r.id = ANY(:ids)"
        f" ORDER BY r.id ON CONFLICT (id, created_at) DO UPDATE SET {_MERGED}"
    )
    leave = text(f"DELETE FROM {jobs} WHERE id = ANY(:ids)")  # noqa: S608
    move_attempts = text(
        f"WITH gone AS (DELETE FROM {attempts} WHERE job_id = ANY(:ids) RETURNING *)"  # noqa: S608
        f" INSERT INTO attempts (created_at, {', '.join(_ATTEMPT)})"
        f" SELECT k.created_at, {', '.join(f'g.{name}' for name in _ATTEMPT)}"
        " FROM gone AS g JOIN job_ids AS k ON k.id = g.job_id ON CONFLICT DO NOTHING"
    )
    moved = 0
    while True:
        with engine.begin() as connection:
            ids = list(connection.scalars(find, window))
            if not ids:
                return moved
            connection.execute(_FILE, {"ids": ids, "now": now, **window})
            connection.execute(move, {"ids": ids})
            connection.execute(leave, {"ids": ids})
            if connection.scalar(text("SELECT to_regclass(:name)"), {"name": attempts}):
                connection.execute(move_attempts, {"ids": ids})
            connection.execute(_LETTERS, {"ids": ids})
        moved += len(ids)


# --------------------------------------------------------------------------------------- the rest

_JOB_LIVES = (
    "EXISTS (SELECT FROM jobs AS j WHERE j.id = t.job_id"
    " AND j.state IN ('scheduled', 'queued', 'running', 'retrying'))"
)
#: Which rows of a table (``t``) have had their time: before ``:cutoff``, or at ``:now``.
_PURGED = {
    "dead_letters": "t.state NOT IN ('open', 'replaying') AND t.resolved_at < :cutoff",
    "replays": (
        "t.finished_at < :cutoff"
        " AND NOT EXISTS (SELECT FROM dead_letters AS d WHERE d.replay_id = t.id)"
    ),
    "job_ids": (
        "t.created_at < date_trunc('day', CAST(:cutoff AS timestamptz), 'UTC')"
        " AND NOT EXISTS (SELECT FROM jobs AS j"
        " WHERE j.id = t.id AND j.created_at = t.created_at)"
    ),
    "idempotent_requests": "t.created_at < CAST(:now AS timestamptz) - interval '2 days'",
    "checkpoints": f"t.updated_at < :cutoff AND NOT {_JOB_LIVES}",
    "cancellations": (
        "(t.closed_at < :cutoff OR (t.requested_at < :cutoff"
        f" AND (t.due_at IS NULL OR t.due_at < :cutoff) AND NOT {_JOB_LIVES}))"
    ),
    "claims": "t.expires_at < :now AND NOT (t.state = 'running' AND t.lease_until > :now)",
    "unique_jobs": "t.until < :now",
    "workers": "t.seen_at < CAST(:now AS timestamptz) - interval '7 days'",
    "watches": "t.until < :now",
    "ledger_rejects": "t.received_at < :cutoff",
    # Who did what is asked long after the job is gone.
    "audit_log": (
        "t.at < least(CAST(:cutoff AS timestamptz),"
        " CAST(:now AS timestamptz) - interval '366 days')"
    ),
    "schedule_slots": "t.fired_at < :cutoff AND t.outcome <> 'queued'",
    "job_rollups": "t.bucket < :cutoff",
}
#: A dead letter leaves its group's counts in the transaction in which it goes.
_FORGET_LETTERS = """
WITH gone AS (
    DELETE FROM dead_letters WHERE id = ANY(ARRAY(
        SELECT t.id FROM dead_letters AS t WHERE {where} ORDER BY t.id LIMIT :batch
        FOR UPDATE SKIP LOCKED))
    RETURNING fingerprint, state, run
), counted AS (
    SELECT fingerprint, count(*) AS total,
        count(*) FILTER (WHERE state = 'replayed') AS replayed,
        count(*) FILTER (WHERE state = 'discarded') AS discarded,
        count(*) FILTER (WHERE state = 'superseded') AS superseded,
        count(*) FILTER (WHERE run > 0) AS died_again
    FROM gone GROUP BY fingerprint
), ordered AS (
    SELECT g.fingerprint FROM dead_letter_groups AS g
    WHERE g.fingerprint IN (SELECT fingerprint FROM counted)
    ORDER BY g.fingerprint FOR UPDATE
), changed AS (
    UPDATE dead_letter_groups AS g SET total = g.total - c.total,
        replayed = g.replayed - c.replayed, discarded = g.discarded - c.discarded,
        superseded = g.superseded - c.superseded, died_again = g.died_again - c.died_again
    FROM counted AS c JOIN ordered AS o USING (fingerprint)
    WHERE g.fingerprint = c.fingerprint
)
SELECT count(*) FROM gone
"""
_FORGET_GROUPS = text("DELETE FROM dead_letter_groups WHERE total <= 0 AND open <= 0")


def _purge(engine: Engine, table: str, cutoff: datetime, now: datetime) -> int:
    where = _PURGED[table]
    values = {name: value for name, value in _clock(cutoff, now).items() if f":{name}" in where}
    if table == "dead_letters":
        statement = text(_FORGET_LETTERS.format(where=where))
    else:
        statement = text(
            f"WITH gone AS (DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608 - constants
            f"SELECT t.ctid FROM {table} AS t WHERE {where} LIMIT :batch"
            " FOR UPDATE SKIP LOCKED)) RETURNING 1) SELECT count(*) FROM gone"
        )
    deleted = 0
    while True:
        with engine.begin() as connection:
            count: int = connection.execute(statement, {"batch": _BATCH, **values}).scalar_one()
        deleted += count
        if count < _BATCH:
            break
    if table == "dead_letters" and deleted:
        with engine.begin() as connection:
            connection.execute(_FORGET_GROUPS)
    return deleted


def _clock(cutoff: datetime, now: datetime) -> dict[str, datetime]:
    return {"cutoff": cutoff, "now": now}


def _look(engine: Engine, cutoff: datetime) -> Report:
    now = datetime.now(UTC)
    refiled = 0
    deleted = {}
    with engine.connect() as connection:
        tables = _tables(connection)
        days = _expired(connection, cutoff)
        for day in days:
            jobs = partition.name_of("jobs", day)
            if jobs in tables:
                window = {"start": _end(day) - timedelta(days=1), "end": _end(day)}
                statement = text(f"SELECT count(*) FROM {jobs} AS r WHERE {_MOVABLE}")  # noqa: S608
                refiled += connection.execute(statement, window).scalar_one()
        for table, where in _PURGED.items():
            values = {name: at for name, at in _clock(cutoff, now).items() if f":{name}" in where}
            statement = text(f"SELECT count(*) FROM {table} AS t WHERE {where}")  # noqa: S608
            deleted[table] = connection.execute(statement, values).scalar_one()
    return Report(days=tuple(days), refiled=refiled, deleted=deleted)
