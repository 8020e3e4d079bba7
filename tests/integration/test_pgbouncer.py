"""Everything works through PgBouncer in transaction mode, with fewer sessions than clients."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from leveret.ledger import State, query
from leveret.ledger.batch import Batch
from leveret.ledger.event import AttemptEvent, Content, JobEvent, Kind, Standing
from leveret.ledger.fold import fold
from leveret.ledger.writer import Writer
from leveret.message import new_id
from leveret.store import async_engine, engine, migrate, partition, retention
from leveret.store.connections import Connections
from tests.support.databases import temporary_database
from tests.support.pgbouncers import pgbouncer

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITERS, BATCHES, JOBS = 6, 8, 20


@pytest.fixture(scope="module")
def url(checkout) -> Iterator[str]:
    """Return the URL, through PgBouncer, of a database that was migrated through it, too."""
    with temporary_database(checkout, "bounced") as direct, pgbouncer(checkout, direct) as bounced:
        made = engine(bounced)
        try:
            assert migrate.upgrade(made) == (None, migrate.head())
            assert migrate.upgrade(made) == (migrate.head(),) * 2
        finally:
            made.dispose()
        yield bounced


def _succeeded(job_id: str, at: float) -> Batch:
    content = Content(
        "report.send", "bulk", "bulk.report.send", "application/json", b"{}", "{}", None, None,
        "flow", None, None, None, None, at,
    )  # fmt: skip
    published = Standing(0, 0, 1, float("-inf"), Kind.PUBLISHED, State.QUEUED)
    ended = Standing(0, 2, 1, at, Kind.SUCCEEDED, State.SUCCEEDED, finished_at=at)
    run = AttemptEvent(0, 1, at, 2, ended_at=at, outcome="succeeded", worker="w", queue="bulk")
    batch = Batch()
    fold(batch.jobs, JobEvent(job_id, "published", published, content))
    fold(batch.jobs, JobEvent(job_id, "succeeded", ended, attempt=run))
    return batch


def test_writers_that_share_sessions_write_everything(url: str) -> None:
    """Their temporary tables, which COPY fills, do not get into each other's way."""
    ids = [[new_id() for _ in range(BATCHES * JOBS)] for _ in range(WRITERS)]
    at = datetime.now(UTC).timestamp()
    shared = engine(url, pool_size=WRITERS)

    def write(mine: list[str]) -> None:
        writer = Writer(shared)
        for number in range(BATCHES):
            batch = Batch()
            for job_id in mine[number * JOBS : (number + 1) * JOBS]:
                batch.jobs.update(_succeeded(job_id, at).jobs)
            writer.write(batch)

    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, ids))
        with shared.connect() as connection:
            found = connection.scalar(text("SELECT count(*) FROM jobs WHERE state = 'succeeded'"))
            assert found == connection.scalar(text("SELECT count(*) FROM attempts"))
            assert found == WRITERS * BATCHES * JOBS
            job = query.job(connection, ids[0][0])
            assert job is not None
            assert (job.state, job.actor, job.body) == (State.SUCCEEDED, "report.send", b"{}")
    finally:
        shared.dispose()


def test_lists_are_read_by_many_at_once(url: str) -> None:
    """In threads and in asyncio, each statement on whichever session is free."""
    which = query.JobFilter(queue="bulk", states=frozenset({State.SUCCEEDED}))
    shared = engine(url, pool_size=8)

    def read(_: int) -> int:
        with shared.connect() as connection:
            query.counts(connection)
            query.oldest_waiting(connection)
            query.workers(connection)
            return len(query.jobs(connection, which, limit=10).items)

    async def read_all() -> set[int]:
        database = async_engine(url, pool_size=8)

        async def one() -> int:
            async with database.connect() as connection:
                page = await connection.run_sync(query.jobs, which, limit=10)
                return len(page.items)

        try:
            return set(await asyncio.gather(*(one() for _ in range(20))))
        finally:
            await database.dispose()

    try:
        writer = Writer(shared)
        for _ in range(10):
            writer.write(_succeeded(new_id(), datetime.now(UTC).timestamp()))
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(read, range(40))) == {10}
        assert asyncio.run(read_all()) == {10}
    finally:
        shared.dispose()


def test_single_statements_of_a_worker_share_sessions(url: str) -> None:
    """What a worker asks and tells the database, from more threads than there are sessions."""
    connections = Connections(url)
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda n: connections.run("SELECT %s::int", (n,)), range(100))
            assert list(answers) == [[(n,)] for n in range(100)]
    finally:
        connections.close()


def test_old_days_are_dropped_through_it(url: str) -> None:
    """Also what cannot run in a transaction, and nothing is left behind in a session."""
    old = datetime.now(UTC) - timedelta(days=60)
    made = engine(url, pool_size=4)
    try:
        with made.begin() as connection:
            partition.ensure(connection, now=old)
        found: list[retention.Report] = []
        thread = threading.Thread(target=lambda: found.append(retention.run(made)))
        thread.start()
        thread.join(100)
        assert old.date() in found[0].days
        assert not found[0].postponed
        with made.connect() as connection:
            assert connection.scalar(text("SHOW lock_timeout")) == "0"
            held = (
                "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
                " WHERE locktype = 'advisory' AND datname = current_database()"
            )
            assert connection.scalar(text(held)) == 0
    finally:
        made.dispose()
