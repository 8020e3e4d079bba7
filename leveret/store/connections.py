"""Connections for single statements, in autocommit mode: what a worker asks and tells the database.

Bare psycopg, since each statement stands for itself and every microsecond counts: a statement is
one round trip. Like everything here it works through PgBouncer in transaction mode.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

import psycopg
from psycopg import errors

from leveret.errors import DatabaseUnavailable
from leveret.store.engine import connect_options, conninfo

__all__ = ["Connections", "storable"]

#: Besides a database that is away: one that is not set up, which somebody will put right.
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.InsufficientPrivilege,
    errors.InvalidSchemaName,
    errors.UndefinedColumn,
    errors.UndefinedTable,
    errors.ReadOnlySqlTransaction,
)


class Connections:
    """As many connections as there are threads that use them at once. Thread-safe.

    Nothing is connected until the first statement. A statement that finds its connection cut is
    run once more on another, so every statement has to bear being run twice.
    """

    def __init__(self, url: str, *, application: str = "leveret") -> None:
        self._conninfo = conninfo(url)
        self._options = connect_options(application)
        self._idle: deque[psycopg.Connection[Any]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; without any, one row with the number it changed.

        Raises `DatabaseUnavailable` when the database cannot be reached or is not set up, and
        `psycopg.Error` for a statement that it refuses.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            pass
        else:
            try:
                return self._run(connection, statement, values)
            except psycopg.Error as error:
                if not connection.closed:
                    _raise(error)
        try:
            return self._run(self._connect(), statement, values)
        except psycopg.Error as error:
            _raise(error)

    def close(self) -> None:
        """Close what is idle now, and the rest when it has been used."""
        with self._lock:
            self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._conninfo, autocommit=True, **self._options)

    def _run(
        self, connection: psycopg.Connection[Any], statement: str, values: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        healthy = False
        try:
            cursor = connection.execute(statement.encode(), values)
            rows = [(cursor.rowcount,)] if cursor.description is None else cursor.fetchall()
            healthy = True
        except psycopg.Error:
            healthy = not connection.broken
            raise
        finally:
            # Whatever else interrupted it may have left it in the middle of an answer.
            if healthy and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
        return rows


def _raise(error: psycopg.Error) -> NoReturn:
    if isinstance(error, _UNAVAILABLE):
        raise DatabaseUnavailable(" ".join(str(error).split())) from error
    raise error


def storable(text: str) -> str:
    """Write an id or a key, which may be any string, without U+0000: PostgreSQL has none."""
    return text.replace("\0", "\\0") if "\0" in text else text
