"""The database of a release: its tables as its migrations make them, with telling rows in each.

Plain SQL, which any PostgreSQL takes in one go. What the ledger knows is written by the recorder's
own writer from the messages of `tests.releases.corpus`; the rest by hand. The same tree writes the
same file: a time at which a row was written here becomes `corpus.NOW`.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import event, insert

from compose.native.paths import Checkout
from leveret import names
from leveret.ledger.batch import Batch
from leveret.ledger.event import Message
from leveret.ledger.writer import Writer
from leveret.schedules import Cron, store
from leveret.schedules.definition import Definition
from leveret.store import engine, migrate, schema
from leveret.store.engine import conninfo
from leveret.store.partition import is_partition
from tests.releases import corpus
from tests.support.databases import temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

__all__ = ["API_KEY", "columns", "made_by_migrations", "make", "restore", "rows"]

#: The key to the HTTP API that is in the frozen database; it opens nothing anywhere else.
API_KEY = f"lv_00f0ca5e0001_{'0' * 64}"
_NOW = corpus.NOW
#: What is frozen by the name that PostgreSQL gives its kind.
_TABLES = """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname = 'public' ORDER BY c.relname"""
_COLUMNS = """SELECT column_name, data_type, is_nullable = 'YES', column_default IS NOT NULL
    OR is_identity = 'YES', is_identity = 'YES' FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position"""
_KEY = """SELECT a.attname FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY a.attnum"""
#: Messages that the ledger has not been told of yet: they wait in the broker.
_UNTOLD = ("unrecorded", "in-outbox", "unwanted", "strange", "failing", "foreign", "scheduled")
_TOLD = ("records: succeeded", "records: started", "records: unsettled", "records: dead",
    "records: heartbeat", "records: progress", "copy: dead")  # fmt: skip


def make() -> str:
    """Make a database, write the scene into it, and return it as SQL."""
    with temporary_database(Checkout.here(), "freeze") as url:
        owner = engine(url, pool_size=2)
        try:
            begin = datetime.now(UTC) - timedelta(minutes=1)
            with corpus.stopped_clock():
                statements = made_by_migrations(owner)
                _fill(owner)
            with psycopg.connect(conninfo(url), options="-c timezone=UTC") as connection:
                written = list(_inserts(connection, begin))
        finally:
            owner.dispose()
    return "".join(f"{_tidy(statement)};\n" for statement in [*statements, *written])


def made_by_migrations(
    owner: Engine, revision: str = "head", *, partitions: bool = True
) -> list[str]:
    """Migrate a database; return the statements that changed its schema."""
    found: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, _x: Any, _many: bool) -> None:
        word = statement.split(maxsplit=1)[0].upper()
        if word in ("SELECT", "SET", "SHOW") or statement.startswith("select "):
            return
        if not partitions and any(map(is_partition, statement.replace("\n", " ").split(" "))):
            return
        assert not values, f"a migration with values cannot be frozen: {statement}"
        found.append(statement)

    event.listen(owner, "before_cursor_execute", note)
    try:
        migrate.upgrade(owner, revision)
    finally:
        event.remove(owner, "before_cursor_execute", note)
    return found


def restore(url: str, text: str) -> None:
    """Bring an empty database to what was frozen."""
    with psycopg.connect(conninfo(url), autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute(text.encode())


def rows(url: str) -> dict[str, list[dict[str, str | None]]]:
    """Return all rows as texts, by table, but for those of partitions alone."""
    with psycopg.connect(conninfo(url), options="-c timezone=UTC") as connection:
        found = {}
        for table in _tables(connection):
            shown = [f'"{name}"::text' for name, *_ in _columns(connection, table)]
            query = f'SELECT {", ".join(shown)} FROM "{table}" ORDER BY {_order(connection, table)}'
            cursor = connection.execute(query.encode())
            assert cursor.description is not None
            words = [column.name for column in cursor.description]
            found[table] = [dict(zip(words, line, strict=True)) for line in cursor.fetchall()]
        return found


def columns(url: str) -> dict[str, dict[str, tuple[str, bool, bool]]]:
    """Return each table's columns: the type, whether it may be null, and may be left out."""
    with psycopg.connect(conninfo(url)) as connection:
        return {
            table: {
                name: (kind, nullable, nullable or default)
                for name, kind, nullable, default, _ in _columns(connection, table)
            }
            for table in _tables(connection)
        }


def _tables(connection: psycopg.Connection[Any]) -> list[str]:
    return [name for (name,) in connection.execute(_TABLES) if not is_partition(name)]


def _columns(connection: psycopg.Connection[Any], table: str) -> list[tuple[Any, ...]]:
    return connection.execute(_COLUMNS, [table]).fetchall()


def _order(connection: psycopg.Connection[Any], table: str) -> str:
    key = [name for (name,) in connection.execute(_KEY, [table])]
    return ", ".join(f'"{name}"' for name in key) or "1"


def _inserts(connection: psycopg.Connection[Any], begin: datetime) -> Iterator[str]:
    # Those that others point to come first.
    for table in sorted(_tables(connection), key=lambda name: (name != "replays", name)):
        if table == "alembic_version":
            continue  # the migrations have written it
        found = _columns(connection, table)
        names_ = ", ".join(f'"{name}"' for name, *_ in found)
        shown = ", ".join(_literal(name, kind, begin) for name, kind, *_ in found)
        query = f'SELECT {shown} FROM "{table}" ORDER BY {_order(connection, table)}'
        lines = connection.execute(query.encode()).fetchall()
        assert lines, f"{table} has no rows; write some in tests/releases/database.py"
        identity = next((name for name, *_, is_identity in found if is_identity), None)
        overriding = " OVERRIDING SYSTEM VALUE" if identity else ""
        for line in lines:
            yield f"INSERT INTO {table} ({names_}){overriding} VALUES ({', '.join(line)})"
        if identity:
            yield (
                f"SELECT setval(pg_get_serial_sequence('{table}', '{identity}'),"
                f" (SELECT max({identity}) FROM {table}))"
            )


def _literal(name: str, kind: str, begin: datetime) -> str:
    if kind == "timestamp with time zone":
        now, since = _NOW.isoformat(), begin.isoformat()
        return (
            f"quote_nullable((CASE WHEN \"{name}\" >= '{since}' AND \"{name}\" < '{since}'"
            f"::timestamptz + interval '1 hour' THEN '{now}' ELSE \"{name}\" END)::text)"
        )
    return f'quote_nullable("{name}"::text)'


def _tidy(statement: str) -> str:
    lines = (line.replace("\t", "    ").rstrip() for line in statement.splitlines())
    return "\n".join(line for line in lines if line).rstrip(";")


# --------------------------------------------------------------------------------------- the scene


def _fill(owner: Engine) -> None:
    batch = Batch()
    for posted in _told():
        # The tap of what was published is in the ledger's queue; a letter in its own.
        queue = posted.queue if posted.name.startswith("copy") else names.LEDGER
        batch.add(
            Message(queue, posted.exchange, posted.routing_key, posted.properties, posted.body,
                redelivered=False),
            _NOW.timestamp(),
        )  # fmt: skip
    Writer(owner).write(batch)
    with owner.begin() as connection:
        _write_by_hand(connection)
        store.create(
            connection,
            Definition(
                name="nightly",
                actor="note.keep",
                arguments={"text": "slot", "n": 0},
                trigger=Cron("0 3 * * *"),
            ),
            origin="api",
            by="cli:tess@test",
        )
        # As it was at noon on that day: made the day before, and last fired in the morning.
        connection.exec_driver_sql(
            "UPDATE schedules SET since = '2026-01-30T12:00:00Z', last_slot ="
            " '2026-01-31T03:00:00Z', next_due_at = '2026-02-01T03:00:00Z'"
        )


def _told() -> Iterator[corpus.Posted]:
    all_jobs = corpus.jobs()
    for name, job in all_jobs.items():
        if name not in _UNTOLD:
            posted = corpus._posted(name, job)
            yield posted
    yield from (
        posted
        for posted in corpus.messages()
        if posted.name in _TOLD or posted.name == "foreign: an id of its own"
    )
    yield corpus.Posted(
        name="records of nobody",
        exchange=names.OUTCOMES,
        routing_key="",
        properties=next(corpus._records()).properties,
        body=b'{"v":1,"records":"none"}',
        queue=names.LEDGER,
    )


def _write_by_hand(connection: Connection) -> None:
    ids = {name: job.id for name, job in corpus.jobs().items()}
    later = _NOW + timedelta(days=30)
    for table, values in (
        (schema.ApiKey, {
            "id": API_KEY.split("_")[1], "name": "frozen", "scopes": ["admin"],
            "hash": sha256(API_KEY.split("_")[2].encode()).digest(), "created_by": "cli:tess@test",
            "created_at": _NOW}),
        (schema.AuditEntry, {
            "at": _NOW, "who": "cli:tess@test", "action": "key.create", "target": "frozen",
            "outcome": "done", "detail": {"scopes": ["admin"]}}),
        (schema.IdempotentRequest, {
            "api_key": API_KEY.split("_")[1], "key": "order-1", "digest": b"\1" * 32,
            "status": 202, "answer": b'{"job_id": "order-4711"}', "created_at": _NOW}),
        (schema.Claim, {
            "actor": "note.keep", "key": "payment-0", "job_id": ids["done"], "state": "done",
            "epoch": 1, "done_at": _NOW, "result": b'{"result": {"kept": "a"}}',
            "expires_at": later}),
        # Of a run that the stop has ended: whoever comes may take it over.
        (schema.Claim, {
            "actor": "note.keep", "key": "payment-1", "job_id": ids["once"], "state": "running",
            "epoch": 1, "worker": corpus.WORKER, "lease_until": _NOW + timedelta(seconds=30)}),
        (schema.UniqueJob, {
            "actor": "note.keep", "key": "report-0", "version": 2, "job_id": ids["done"],
            "published_at": _NOW, "done_at": _NOW, "until": later}),
        (schema.Checkpoint, {
            "job_id": ids["running"], "data": b'{"page": 7}', "updated_at": _NOW}),
        (schema.Cancellation, {
            "job_id": ids["cancelled"], "requested_by": "cli:tess@test", "requested_at": _NOW}),
        (schema.Watch, {
            "job_id": ids["running"], "watcher": "api:frozen",
            "until": _NOW + timedelta(minutes=1)}),
        (schema.JobRollup, {
            "bucket": _NOW, "actor": "note.keep", "queue": "default", "state": "succeeded",
            "jobs": 1, "retries": 0, "run_seconds": 1.0, "queue_seconds": 1.0,
            "run_histogram": [0, 1], "queue_histogram": [0, 1]}),
        (schema.RollupMark, {"bucket": _NOW}),
        (schema.Lease, {
            "name": "scheduler", "holder": "scheduler@frozen:1", "epoch": 3,
            "acquired_at": _NOW - timedelta(hours=1), "expires_at": _NOW}),
        (schema.ScheduleSlot, {
            "schedule": "nightly", "slot": _NOW.replace(hour=3), "job_id": ids["slot"],
            "epoch": 3, "due_at": _NOW.replace(hour=3), "fired_at": _NOW.replace(hour=3)}),
        (schema.Replay, {
            "requested_by": "cli:tess@test", "selection": {"actor": "note.fail"}, "state": "done",
            "total": 1, "published": 1, "created_at": _NOW, "finished_at": _NOW}),
    ):  # fmt: skip
        connection.execute(insert(table).values(**values))
    for row in corpus.outbox():
        values = {
            **row,
            **{
                name: base64.b64decode(row[name])
                for name in ("body", "properties")
                if row.get(name) is not None
            },
        }
        if values.get("options") is not None:
            connection.exec_driver_sql(
                "INSERT INTO leveret_outbox (job_id, actor, queue, body, options)"
                " VALUES (%(job_id)s, %(actor)s, %(queue)s, %(body)s, %(options)s::json)",
                values,
            )
        else:
            connection.execute(insert(schema.OutboxRow).values(**values))
