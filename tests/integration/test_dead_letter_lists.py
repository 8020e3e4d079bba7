"""Lists of dead letters cost what a page costs, whatever they are filtered by."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from leveret.deadletters import query
from leveret.deadletters.selection import Selection
from leveret.deadletters.state import LetterState
from leveret.store import engine, migrate
from tests.support.databases import temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection

LETTERS = 40_000
_FILL = text(
    """
    INSERT INTO dead_letters (key, job_id, actor, queue, routing_key, reason, error_type, error,
        traceback, fingerprint, body, properties, dead_at, state)
    SELECT 'k' || n, 'j' || n, 'actor.n' || n % 20,
        (ARRAY['critical', 'default', 'bulk', 'scheduled'])[1 + n % 20 % 4], 'key',
        (ARRAY['exhausted', 'bad-arguments', 'timeout'])[1 + n % 20 % 3], 'Error',
        'error ' || n, repeat('a line of a traceback', 20), 'f' || n % 25, '{}', '',
        now() - n * interval '10 s',
        CASE WHEN n % 10 < 7 THEN 'open' WHEN n % 10 = 7 THEN 'replayed' ELSE 'discarded' END
    FROM generate_series(1, :n) AS n
    """
)


@pytest.fixture
def connection(checkout) -> Iterator[Connection]:
    """Return a connection to a database with many dead letters."""
    with temporary_database(checkout, "letters") as url:
        made = engine(url)
        try:
            migrate.upgrade(made)
            with made.begin() as connection:
                connection.execute(_FILL, {"n": LETTERS})
            with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE dead_letters"))
            with made.connect() as connection:
                yield connection
        finally:
            made.dispose()


def _selections() -> Iterator[Selection]:
    for state, actor, queue, reason, fingerprint in itertools.product(
        [None, LetterState.OPEN, LetterState.SUPERSEDED],
        [None, "actor.n1", "no.actor"],
        [None, "default", "bulk", "none"],
        [None, "exhausted", "never"],
        [None, "f3"],
    ):
        yield Selection(
            state=state, actor=actor, queue=queue, reason=reason, fingerprint=fingerprint
        )


def _buffers(connection: Connection, which: Selection) -> int:
    statement = query.page_statement(which, limit=51)
    compiled = statement.compile(dialect=connection.dialect)
    plan: Any = connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}", compiled.params
    ).scalar_one()[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_no_filter_reads_all_letters(connection: Connection) -> None:
    """Also conditions that never meet are looked up in an index, never in the letters."""
    pages = connection.scalar(text("SELECT pg_relation_size('dead_letters') / 8192"))
    for which in _selections():
        read = _buffers(connection, which)
        assert read < pages / 3, (which, read, pages)
