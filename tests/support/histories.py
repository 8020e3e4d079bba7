"""A ledger with a history, made by PostgreSQL itself: millions of jobs in seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from leveret.store import partition

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

ACTORS = 20
QUEUES = ("critical", "default", "bulk", "scheduled")

_ID = "lpad(to_hex(floor(extract(epoch FROM t) * 1000)::bigint), 12, '0')"
_JOBS = text(
    f"""
    INSERT INTO jobs (id, created_at, actor, queue, content_type, body, correlation_id,
        idempotency_key, published_at, state, started_at, finished_at, worker, settled, event_at)
    SELECT left({_ID}, 8) || '-' || right({_ID}, 4) || '-7000-8000-' || lpad(to_hex(n), 12, '0'),
        date_trunc('milliseconds', t),
        CASE WHEN n % 100003 = 7 THEN 'rare.actor' ELSE 'actor.n' || n % :actors END,
        CASE WHEN n % 50021 = 5 THEN NULL WHEN n % 200003 = 9 THEN 'odd'
            ELSE (CAST(:queues AS text[]))[1 + n % :actors % 4] END,
        'application/json', '{{}}',
        CASE WHEN n % 10 = 0 THEN 'flow' || n / 1000 END,
        CASE WHEN n % 7 = 0 THEN 'key' || n END,
        t,
        CASE WHEN n % 5003 = 1 THEN 'dead' WHEN n % 300007 = 5 THEN 'expired'
            WHEN n % 10007 = 3 THEN 'cancelled' WHEN n > :n * 0.999 THEN 'queued'
            ELSE 'succeeded' END,
        t, t, 'w', 2, t
    FROM (
        SELECT n, CAST(:start AS timestamptz) + n * CAST(:span AS interval) / :n AS t
        FROM generate_series(1, :n) AS n
    ) AS moments
    """
)


def make_partitions(connection: Connection, *, days: int) -> None:
    """Make the partitions of so many days up to today."""
    now = datetime.now(UTC)
    for back in range(0, days + 7, 7):
        partition.ensure(connection, now=now - timedelta(days=back))


def fill(engine: Engine, jobs: int, *, start: datetime, span: timedelta) -> None:
    """Write jobs that were created evenly in a span of time, a few of them dead or waiting."""
    values = {"n": jobs, "start": start, "span": span, "actors": ACTORS, "queues": list(QUEUES)}
    with engine.begin() as connection:
        connection.execute(_JOBS, values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE jobs"))
