"""Running one named query of the catalogue against a data source, in batches.

The catalogue is a folder of ``.sql`` files; ``flights/monthly_delays`` is
``flights/monthly_delays.sql`` in the folder of ``LEVERET_QUERIES``, or else in the box. A file
holds one SELECT whose parameters are written ``:name``. They are always bound by the database,
never put into the text. Comments are dropped, and what looks like a parameter inside a quoted text
is none.

What comes out is Arrow record batches of at most `BATCH_ROWS` rows, so memory does not grow with
the result.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from actors.error import ActorArgumentError, ActorSettingsError, UnavailableError
from actors.library import library
from actors.settings import ReportSettings, load, source_url
from actors.source import is_database, open_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb
    import pyarrow as pa
else:
    duckdb, pa = library("duckdb"), library("pyarrow")

__all__ = ["BATCH_ROWS", "Query", "Rows", "Scalar", "find", "run"]

BATCH_ROWS = 10_000
SHIPPED_QUERIES = Path(__file__).parent / "queries"

_SQLITE_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)

Scalar = str | int | float | bool | None

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){0,4}")
#: Quoted text or PostgreSQL's ``::``; or a comment; or a parameter.
_TOKEN = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|::)|(--[^\n]*|/\*.*?\*/)|(?<![:\w]):(\w+)""", re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A query of the catalogue and the parameters it wants."""

    name: str
    sql: str
    parameters: frozenset[str]


@dataclass(frozen=True)
class Rows:
    """The result of a query: its schema, and its batches, which can be read once."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def find(name: str) -> Query:
    """Return the query ``name``; raise `ActorArgumentError` when the catalogue lacks it."""
    if not _NAME.fullmatch(name):
        raise ActorArgumentError(f"{name[:200]!r} cannot name a query: names look like team/report")
    folder = load(ReportSettings).queries
    for root in (folder, SHIPPED_QUERIES):
        path = root / f"{name}.sql" if root else None
        if path is not None and path.is_file():
            sql = path.read_text(encoding="utf-8").strip().rstrip(";")
            parameters = frozenset(match[3] for match in _TOKEN.finditer(sql) if match[3])
            return Query(name=name, sql=sql, parameters=parameters)
    raise ActorArgumentError(f"there is no query {name!r}: LEVERET_QUERIES names their folder")


@contextmanager
def run(query: Query, source: str, parameters: Mapping[str, Scalar]) -> Iterator[Rows]:
    """Run ``query`` on the data source ``source`` and give its rows while the block lasts.

    Raises `ActorArgumentError` when the parameters are not those of the query or the database
    objects to it, and `UnavailableError` when the database cannot be reached.
    """
    if query.parameters != parameters.keys():
        raise ActorArgumentError(
            f"the query {query.name!r} wants the parameters {sorted(query.parameters)}, "
            f"not {sorted(parameters)}"
        )
    url = source_url(source)
    opened = (
        _database(query, url, parameters) if is_database(url) else _files(query, source, parameters)
    )
    with opened as rows:
        yield rows


def _for_duckdb(sql: str) -> str:
    return _TOKEN.sub(lambda match: match[1] or (f"${match[3]}" if match[3] else " "), sql)


def _for_sqlalchemy(sql: str) -> str:
    def written(match: re.Match[str]) -> str:
        if match[1]:
            return match[1].replace(":", "\\:")
        return f":{match[3]}" if match[3] else " "

    return _TOKEN.sub(written, sql)


@contextmanager
def _files(query: Query, source: str, parameters: Mapping[str, Scalar]) -> Iterator[Rows]:
    sql = _for_duckdb(query.sql)
    with open_files(source) as connection:
        try:
            statements = connection.extract_statements(sql)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ActorArgumentError(f"the query {query.name!r} must be a single SELECT")
            relation = connection.sql(sql, params=dict(parameters))
            reader = relation.to_arrow_reader(BATCH_ROWS)
            yield Rows(reader.schema, iter(reader))
        except duckdb.IOException:
            raise
        except (duckdb.Error, pa.ArrowException) as error:
            raise ActorArgumentError(f"the query {query.name!r} failed: {error}") from error


@contextmanager
def _database(query: Query, url: str, parameters: Mapping[str, Scalar]) -> Iterator[Rows]:
    try:
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise ActorSettingsError(
            f"the URL of a data source cannot be used: {type(error).__name__}"
        ) from error
    try:
        with engine.connect() as connection:
            _forbid_writing(connection)
            result = connection.execution_options(
                stream_results=True, max_row_buffer=BATCH_ROWS
            ).execute(sa.text(_for_sqlalchemy(query.sql)), dict(parameters))
            if not result.returns_rows:
                raise ActorArgumentError(f"the query {query.name!r} must be a SELECT")
            yield _batches(query, result)
    except sa.exc.DBAPIError as error:
        if _may_pass(error):
            raise UnavailableError(
                f"the query {query.name!r} cannot run now: {error.orig}"
            ) from error
        raise ActorArgumentError(f"the query {query.name!r} failed: {error.orig}") from error
    except sa.exc.StatementError as error:
        raise ActorArgumentError(f"the query {query.name!r} failed: {error}") from error
    finally:
        engine.dispose()


def _may_pass(error: sa.exc.DBAPIError) -> bool:
    """Return whether the next attempt may work: the server, not the query, is the cause.

    SQLite reports wrong queries as operational errors, too; its result codes tell them apart.
    """
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _SQLITE_PASSING
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)


def _forbid_writing(connection: sa.Connection) -> None:
    dialect = connection.dialect.name
    statement = {
        "postgresql": "SET TRANSACTION READ ONLY",
        "sqlite": "PRAGMA query_only = ON",
    }.get(dialect)
    if statement is None:
        raise ActorSettingsError(
            f"data sources of {dialect} cannot be opened read-only: use PostgreSQL or SQLite"
        )
    connection.exec_driver_sql(statement)


def _batches(query: Query, result: sa.CursorResult[Any]) -> Rows:
    names = list(result.keys())
    if len(set(names)) != len(names):
        raise ActorArgumentError(f"the query {query.name!r} has two columns of one name: {names}")
    parts = result.partitions(BATCH_ROWS)
    first = next(parts, [])
    schema = pa.schema(
        [
            (name, _column_type(query, name, [row[at] for row in first]))
            for at, name in enumerate(names)
        ]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        yield _batch(query, schema, first)
        for part in parts:
            yield _batch(query, schema, part)

    return Rows(schema, batches())


def _column_type(query: Query, name: str, values: list[Any]) -> pa.DataType:
    """Return the type of a column by its first batch; a column without values there is text."""
    try:
        found = pa.array([_plain(value) for value in values]).type
    except pa.ArrowException as error:
        raise ActorArgumentError(
            f"the column {name!r} of {query.name!r} mixes types: cast it in the query"
        ) from error
    return pa.string() if pa.types.is_null(found) else found


def _batch(query: Query, schema: pa.Schema, rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    columns = []
    for at, item in enumerate(schema):
        values = [_plain(row[at]) for row in rows]
        if pa.types.is_string(item.type):
            values = [value if value is None else str(value) for value in values]
        try:
            columns.append(pa.array(values, type=item.type))
        except pa.ArrowException as error:
            raise ActorArgumentError(
                f"the column {item.name!r} of {query.name!r} is not always {item.type}: "
                "cast it in the query"
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _plain(value: Any) -> Any:
    """Return ``value`` as Arrow takes it.

    Exact decimals become doubles (a query that must be exact casts them to text), and JSON values
    and UUIDs become text.
    """
    match value:
        case Decimal():
            return float(value)
        case dict() | list():
            return json.dumps(value, default=str)
        case memoryview():
            return bytes(value)
        case UUID():
            return str(value)
        case _:
            return value
