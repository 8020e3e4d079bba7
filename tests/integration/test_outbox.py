"""Jobs in the transaction of business data: written with it, published after it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from leveret import outbox
from leveret.errors import InvalidJob, OutboxError
from leveret.message import Job
from leveret.store import async_engine, engine
from leveret.store.migrate import upgrade
from leveret.store.outbox import statements
from tests.support.databases import temporary_database
from tests.support.relays import lay_out, waiting


@pytest.fixture(scope="module")
def database(checkout):
    """Return a service's own database with the outbox and a table of its business."""
    with temporary_database(checkout, "shop") as url:
        lay_out(url)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE orders (number int PRIMARY KEY)")
        yield url


@pytest.fixture(autouse=True)
def empty(database):
    """Begin each test with empty tables."""
    with psycopg.connect(database) as connection:
        connection.execute("TRUNCATE leveret_outbox, orders RESTART IDENTITY")


def rows(url):
    """Return the rows of the outbox, in their order."""
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(
            "SELECT id, job_id, actor, queue, body, options, due_at, hold_until::text, error"
            " FROM leveret_outbox ORDER BY id"
        ).fetchall()


# ------------------------------------------------------------------------- each kind of connection


@contextmanager
def plain(url):
    """Open a connection of psycopg."""
    with psycopg.connect(url) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def cursor(url):
    """Open a cursor of psycopg, on which something was read."""
    with psycopg.connect(url) as connection, connection.cursor() as found:
        found.execute("SELECT 1")
        yield found, connection.commit, connection.rollback


@contextmanager
def client_cursor(url):
    """Open a connection whose cursors bind on the client."""
    with psycopg.connect(url, cursor_factory=psycopg.ClientCursor) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def raw_cursor(url):
    """Open a connection whose cursors take numbered parameters."""
    with psycopg.connect(url, cursor_factory=psycopg.RawCursor) as connection:
        yield connection, connection.commit, connection.rollback


@contextmanager
def block(url):
    """Open a connection in autocommit mode, and a transaction on it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("BEGIN")
        yield connection, connection.commit, connection.rollback


@contextmanager
def core(url):
    """Open a connection of SQLAlchemy."""
    made = engine(url)
    with made.connect() as connection:
        yield connection, connection.commit, connection.rollback
    made.dispose()


@contextmanager
def session(url):
    """Open a session of SQLAlchemy."""
    made = engine(url)
    with Session(made) as found:
        yield found, found.commit, found.rollback
    made.dispose()


@contextmanager
def scoped(url):
    """Open a session of the thread."""
    made = engine(url)
    found = scoped_session(sessionmaker(made))
    yield found, found.commit, found.rollback
    found.remove()
    made.dispose()


SYNC = [plain, cursor, client_cursor, raw_cursor, block, core, session, scoped]


@pytest.mark.parametrize("kind", SYNC)
def test_a_job_is_there_when_its_transaction_commits_and_not_when_it_is_rolled_back(kind, database):
    """For each kind of connection, cursor and session."""
    with kind(database) as (connection, commit, rollback):
        outbox.enqueue(connection, "email.send", {"to": "nobody"})
        assert waiting(database) == 0
        rollback()
        if kind is block:
            connection.execute("BEGIN")
        job_id = outbox.enqueue(connection, "email.send", {"to": "ada"}, queue="bulk", priority=3)
        outbox.enqueue_many(connection, [("email.send", {"n": n}) for n in range(3)])
        commit()
    first, *others = rows(database)
    assert (first["job_id"], first["actor"], first["queue"]) == (job_id, "email.send", "bulk")
    assert json.loads(first["body"]) == {"to": "ada"}
    assert first["options"] == {"priority": 3}
    assert [json.loads(row["body"]) for row in others] == [{"n": n} for n in range(3)]


@asynccontextmanager
async def async_plain(url):
    """Open a connection of psycopg for asyncio."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection, connection.commit, connection.rollback


@asynccontextmanager
async def async_cursor(url):
    """Open a cursor of psycopg for asyncio."""
    async with (
        await psycopg.AsyncConnection.connect(url) as connection,
        connection.cursor() as found,
    ):
        yield found, connection.commit, connection.rollback


@asynccontextmanager
async def async_core(url):
    """Open a connection of SQLAlchemy for asyncio."""
    made = async_engine(url)
    async with made.connect() as connection:
        yield connection, connection.commit, connection.rollback
    await made.dispose()


@asynccontextmanager
async def async_session(url):
    """Open a session of SQLAlchemy for asyncio."""
    made = async_engine(url)
    async with AsyncSession(made) as found:
        yield found, found.commit, found.rollback
    await made.dispose()


@asynccontextmanager
async def async_scoped(url):
    """Open a session of the task."""
    made = async_engine(url)
    found = async_scoped_session(async_sessionmaker(made), asyncio.current_task)
    yield found, found.commit, found.rollback
    await found.remove()
    await made.dispose()


ASYNC = [async_plain, async_cursor, async_core, async_session, async_scoped]


@pytest.mark.parametrize("kind", ASYNC)
def test_the_same_holds_in_asyncio(kind, database):
    """For the twins of each."""

    async def scenario():
        async with kind(database) as (connection, commit, rollback):
            await outbox.enqueue_async(connection, "email.send", {"to": "nobody"})
            await rollback()
            job_id = await outbox.enqueue_async(connection, "email.send", {"to": "ada"})
            await outbox.enqueue_many_async(connection, [("email.send", {"n": n}) for n in (1, 2)])
            await commit()
            return job_id

    job_id = asyncio.run(scenario())
    first, *others = rows(database)
    assert (first["job_id"], json.loads(first["body"])) == (job_id, {"to": "ada"})
    assert [json.loads(row["body"]) for row in others] == [{"n": 1}, {"n": 2}]


def test_a_job_shares_the_fate_of_a_savepoint(database):
    """What is rolled back with it is not there."""
    with psycopg.connect(database) as connection:
        outbox.enqueue(connection, "order.pack", job_id="kept")
        with connection.transaction(force_rollback=True):
            outbox.enqueue(connection, "order.pack", job_id="undone")
    assert [row["job_id"] for row in rows(database)] == ["kept"]


def test_what_has_no_transaction_is_refused(database):
    """A job in autocommit mode would not share anything's fate."""
    with (
        psycopg.connect(database, autocommit=True) as connection,
        pytest.raises(OutboxError, match="autocommit"),
    ):
        outbox.enqueue(connection, "email.send")
    for options in ({"isolation_level": "AUTOCOMMIT"}, {}):
        made = engine(database, **options)
        with made.connect() as connection:
            if not options:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")  # noqa: PLW2901
            with pytest.raises(OutboxError, match="autocommit"):
                outbox.enqueue(connection, "email.send")
            with Session(connection) as found, pytest.raises(OutboxError, match="autocommit"):
                outbox.enqueue(found, "email.send")
        made.dispose()

    async def scenario():
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            with pytest.raises(OutboxError, match="autocommit"):
                await outbox.enqueue_async(connection, "email.send")
        made = async_engine(database, isolation_level="AUTOCOMMIT")
        async with made.connect() as connection:
            with pytest.raises(OutboxError, match="autocommit"):
                await outbox.enqueue_async(connection, "email.send")
        await made.dispose()

    asyncio.run(scenario())
    assert waiting(database) == 0


def test_the_other_world_is_refused_with_what_to_do(database):
    """What is for asyncio is not taken by `enqueue`, and the other way round."""

    async def scenario():
        made = async_engine(database)
        async with (
            await psycopg.AsyncConnection.connect(database) as connection,
            AsyncSession(made) as found,
            made.connect() as core_connection,
        ):
            for given in (connection, connection.cursor(), found, core_connection):
                with pytest.raises(OutboxError, match="enqueue_async"):
                    outbox.enqueue(given, "email.send")
        await made.dispose()
        with psycopg.connect(database) as connection:
            for given in (connection, connection.cursor(), Session()):
                with pytest.raises(OutboxError, match=r"use `outbox.enqueue"):
                    await outbox.enqueue_async(given, "email.send")
            with pytest.raises(OutboxError, match=r"and this is builtins\.str"):
                await outbox.enqueue_async(database, "email.send")

    asyncio.run(scenario())


def test_another_kind_of_database_is_refused():
    """The relay reads PostgreSQL."""
    made = sqlalchemy.create_engine("sqlite://")
    with made.connect() as connection, pytest.raises(OutboxError, match="connects to sqlite"):
        outbox.enqueue(connection, "email.send")
    made.dispose()


def test_many_jobs_are_written_in_their_order(database):
    """More than one statement takes; pairs and jobs alike."""
    jobs = [Job(actor="order.pack", id=f"job-{n}", arguments={"n": n}) for n in range(1500)]
    with psycopg.connect(database) as connection:
        ids = outbox.enqueue_many(connection, iter(jobs))
        assert outbox.enqueue_many(connection, []) == []
    assert ids == [f"job-{n}" for n in range(1500)]
    assert [row["job_id"] for row in rows(database)] == ids


def test_a_job_that_breaks_the_contract_leaves_the_transaction_usable(database):
    """It is refused before anything is sent to the database."""
    with psycopg.connect(database) as connection:
        with pytest.raises(InvalidJob, match="actor's name"):
            outbox.enqueue(connection, "no actor")
        with pytest.raises(InvalidJob, match=r"U\+0000"):
            outbox.enqueue(connection, "email.send", job_id="a\0b")
        outbox.enqueue(connection, "email.send", {"text": "a\0b"}, idempotency_key="a\0b")
    (row,) = rows(database)
    assert json.loads(row["body"]) == {"text": "a\0b"}


# ---------------------------------------------------------------------------------------- the table


CATALOGUE = {
    "columns": """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
            pg_get_expr(adbin, adrelid)
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = 'leveret_outbox'::regclass AND attnum > 0 ORDER BY attnum""",
    "indexes": """
        SELECT pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indrelid = 'leveret_outbox'::regclass ORDER BY 1""",
    "constraints": """
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = 'leveret_outbox'::regclass ORDER BY 1""",
    "trigger": """
        SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger
        WHERE tgrelid = 'leveret_outbox'::regclass ORDER BY 1""",
    "function": "SELECT prosrc FROM pg_proc WHERE proname = 'leveret_outbox_notify'",
    "storage": """
        SELECT t.reloptions, (SELECT reloptions FROM pg_class WHERE oid = t.reltoastrelid)
        FROM pg_class t WHERE oid = 'leveret_outbox'::regclass""",
}


def shape(url):
    """Return all that the catalogues know of the table."""
    with psycopg.connect(url) as connection:
        return {name: connection.execute(query).fetchall() for name, query in CATALOGUE.items()}


def test_a_services_table_is_the_one_that_migrations_make(fresh_database, database):
    """Column by column; and making it again changes nothing."""
    made = engine(fresh_database)
    upgrade(made)
    made.dispose()
    before = shape(database)
    with psycopg.connect(database) as connection:
        for statement in statements():
            connection.execute(statement)
    assert shape(database) == before == shape(fresh_database)
