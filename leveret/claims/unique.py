"""Unique jobs, as the database knows them: the table ``unique_jobs``, and the ledger.

What it means for a job to be unique is told in `leveret.claims.decision`. A worker reads what is
known of a key, decides, and writes that its job starts only over what it has read; when somebody
else has written meanwhile, it decides again. So of two jobs that start at once, one sees the other.

Two sources tell of a job that was published later: the ledger, which lags behind by what the
recorder has not stored yet, and the row itself, where `register_unique` writes it in the
transaction of whoever publishes through the outbox.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from leveret.claims.decision import Published, Standing, Wish, decide
from leveret.message import Job, arguments_key, encode_arguments, job_time, storable

if TYPE_CHECKING:
    from leveret.store.connections import Connections

__all__ = ["Hold", "Uniques", "key_of", "published_at", "register_unique"]

#: How long a job that waits for its next attempt is believed to come back after it was due.
_OVERDUE = timedelta(hours=1)

_READ = """
SELECT version, job_id, published_at, started_at, done_at, held_until, latest_id, latest_at,
    clock_timestamp()
FROM (SELECT) AS always LEFT JOIN unique_jobs ON actor = %(actor)s AND key = %(key)s
"""
#: The same, with what the ledger knows; a job that has ended badly replaces nobody.
_READ_LATER = """
SELECT version, unique_jobs.job_id, unique_jobs.published_at, unique_jobs.started_at, done_at,
    held_until,
    CASE WHEN NOT EXISTS (SELECT FROM jobs WHERE jobs.id = latest_id
        AND state IN ('dead', 'cancelled', 'expired')) THEN latest_id END,
    latest_at, clock_timestamp(), later.id, later.created_at
FROM (SELECT) AS always
LEFT JOIN unique_jobs ON unique_jobs.actor = %(actor)s AND key = %(key)s
LEFT JOIN LATERAL (
    SELECT jobs.id, jobs.created_at FROM jobs
    WHERE idempotency_key = %(key)s AND jobs.actor = %(actor)s
        AND jobs.created_at >= %(published)s AND jobs.id <> %(job)s
        AND state NOT IN ('dead', 'cancelled', 'expired')
        AND (%(before)s::timestamptz IS NULL OR jobs.created_at < %(before)s)
    ORDER BY jobs.created_at DESC, jobs.id DESC LIMIT 1
) AS later ON true
"""
_START = """
INSERT INTO unique_jobs AS found
    (actor, key, version, job_id, published_at, started_at, done_at, held_until, until)
VALUES (%(actor)s, %(key)s, 1, %(job)s, %(published)s, clock_timestamp(), NULL,
    clock_timestamp() + %(lease)s, clock_timestamp() + %(keep)s)
ON CONFLICT (actor, key) DO UPDATE SET
    version = found.version + 1, job_id = EXCLUDED.job_id, published_at = EXCLUDED.published_at,
    started_at = EXCLUDED.started_at, done_at = NULL, held_until = EXCLUDED.held_until,
    until = greatest(found.until, EXCLUDED.until)
WHERE found.version = %(seen)s
"""
_DONE = """
UPDATE unique_jobs SET version = version + 1, done_at = clock_timestamp(), held_until = NULL
WHERE actor = %(actor)s AND key = %(key)s AND job_id = %(job)s AND done_at IS NULL
"""
_WAIT = """
UPDATE unique_jobs SET version = version + 1, held_until = clock_timestamp() + %(wait)s
WHERE actor = %(actor)s AND key = %(key)s AND job_id = %(job)s AND done_at IS NULL
"""
_FREE = """
UPDATE unique_jobs SET version = version + 1, job_id = NULL, published_at = NULL,
    started_at = NULL, done_at = NULL, held_until = NULL
WHERE actor = %(actor)s AND key = %(key)s AND job_id = %(job)s
"""
_RENEW = """
UPDATE unique_jobs SET held_until = clock_timestamp() + %(lease)s
FROM unnest(%(actors)s::text[], %(keys)s::text[], %(jobs)s::text[]) AS mine (actor, key, job_id)
WHERE unique_jobs.actor = mine.actor AND unique_jobs.key = mine.key
    AND unique_jobs.job_id = mine.job_id AND done_at IS NULL
"""
_REGISTER = """
INSERT INTO unique_jobs AS found (actor, key, version, latest_id, latest_at, until)
VALUES (:actor, :key, 1, :job, :published, :until)
ON CONFLICT (actor, key) DO UPDATE SET version = found.version + 1,
    latest_id = EXCLUDED.latest_id, latest_at = EXCLUDED.latest_at,
    until = greatest(found.until, EXCLUDED.until)
WHERE found.latest_at IS NULL
    OR (found.latest_at, found.latest_id) < (EXCLUDED.latest_at, EXCLUDED.latest_id)
"""
_KEEP_REGISTERED = timedelta(days=30)


def key_of(job: Job) -> str:
    """Return the key in which a job is unique."""
    if job.idempotency_key is not None:
        return job.idempotency_key
    return arguments_key(encode_arguments(job.arguments))


def published_at(job: Job, timestamp: object, now: datetime) -> datetime:
    """Return when a job was published: by its id, or its AMQP timestamp, or else now."""
    if job.run:
        return now
    seconds = job_time(job.id)
    if seconds is None and isinstance(timestamp, int):
        seconds = float(timestamp)
    if seconds is None:
        return now
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return now


class Hold:
    """That a job of this process stands for its key, while it runs."""

    __slots__ = ("actor", "job_id", "key")

    def __init__(self, actor: str, key: str, job_id: str) -> None:
        self.actor = actor
        self.key = storable(key)
        self.job_id = storable(job_id)

    @property
    def values(self) -> dict[str, Any]:
        """What statements about it need."""
        return {"actor": self.actor, "key": self.key, "job": self.job_id}


class Uniques:
    """The table of unique jobs, as one worker process writes it. Thread-safe.

    Every method raises `DatabaseUnavailable`, and bears being repeated.
    """

    def __init__(self, connections: Connections, *, lease: timedelta, keep: timedelta) -> None:
        self._connections = connections
        self._lease = lease
        self._keep = keep

    def start(self, job: Job, key: str, published: datetime) -> Hold | str:
        """Let a job stand for its key; or tell why it is redundant."""
        hold = Hold(job.actor, key, job.id)
        wish = Wish(
            job=Published(job_id=hold.job_id, at=published),
            period=job.unique_for,
            until=job.unique_until,
            on_conflict=job.on_conflict,
        )
        before = None if job.unique_for is None else published + job.unique_for
        values = {
            **hold.values,
            "published": published,
            "before": before,
            "lease": self._lease,
            "keep": self._keep + (job.unique_for or timedelta(0)),
        }
        query = _READ_LATER if job.on_conflict == "replace" else _READ
        while True:
            row = self._connections.run(query, values)[0]
            version, standing, later, now = _read(row)
            reason = decide(wish, standing, later, now)
            if reason is not None:
                return reason
            if self._connections.run(_START, {**values, "seen": version})[0][0]:
                return hold

    def done(self, hold: Hold) -> None:
        """Take note that a job has succeeded."""
        self._connections.run(_DONE, hold.values)

    def wait(self, hold: Hold, delay: timedelta) -> None:
        """Take note that a job runs again after ``delay``, more or less."""
        self._connections.run(_WAIT, {**hold.values, "wait": delay + _OVERDUE})

    def free(self, hold: Hold) -> None:
        """Take note that a job has ended badly, and stands for nobody."""
        self._connections.run(_FREE, hold.values)

    def renew(self, holds: list[Hold]) -> None:
        """Say that jobs still run."""
        values = {
            "actors": [hold.actor for hold in holds],
            "keys": [hold.key for hold in holds],
            "jobs": [hold.job_id for hold in holds],
            "lease": self._lease,
        }
        self._connections.run(_RENEW, values)


def _read(
    row: tuple[Any, ...],
) -> tuple[int, Standing | None, list[Published], datetime]:
    version, job_id, published, started, done, held, latest_id, latest_at, now, *ledger = row
    standing = None
    if job_id is not None:
        standing = Standing(
            job=Published(job_id=job_id, at=published),
            started_at=started,
            done_at=done,
            held_until=held or started,
        )
    later = []
    if latest_id is not None:
        later.append(Published(job_id=latest_id, at=latest_at))
    if ledger and ledger[0] is not None:
        later.append(Published(job_id=ledger[0], at=ledger[1]))
    return version or 0, standing, later, now


def register_unique(connection: Any, job: Job) -> None:
    """Tell workers of a unique job that is being published, in the transaction that publishes it.

    With it, an earlier job that is replaced by this one (``on_conflict="replace"``) learns of it
    at once, and not when the ledger has caught up. ``connection`` is a connection or session of
    SQLAlchemy, or a connection of psycopg, to the database that has Leveret's tables; for
    an asynchronous one of SQLAlchemy, ``await connection.run_sync(register_unique, job)``. Does
    nothing for a job that is not unique.
    """
    if not job.is_unique:
        return
    published = published_at(job, None, datetime.now(UTC))
    values = {
        "actor": job.actor,
        "key": storable(key_of(job)),
        "job": storable(job.id),
        "published": published,
        "until": max(job.due_at or published, published)
        + (job.unique_for or timedelta(0))
        + _KEEP_REGISTERED,
    }
    if type(connection).__module__.partition(".")[0] == "psycopg":
        statement = _REGISTER
        for name in values:
            statement = statement.replace(f":{name}", f"%({name})s")
        connection.execute(statement, values)
        return
    from sqlalchemy import text  # noqa: PLC0415 - whoever has a connection has SQLAlchemy

    connection.execute(text(_REGISTER), values)
