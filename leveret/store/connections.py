"""Connections for single statements, in autocommit mode: what a worker asks and tells the database.

Bare psycopg, since each statement stands for itself and every microsecond counts: a statement is
one round trip. Like everything here it works through PgBouncer in transaction mode.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import errors

from leveret.errors import DatabaseUnavailable
from leveret.store.bounded import BoundedConnection, NoAnswer
from leveret.store.engine import connect_options, conninfo

__all__ = ["Connections"]

log = logging.getLogger("leveret.store")

#: A database that is there, but not as it should be; somebody will put it right.
_NOT_SET_UP = (
    errors.InsufficientPrivilege,
    errors.InvalidSchemaName,
    errors.UndefinedColumn,
    errors.UndefinedTable,
)
_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    *_NOT_SET_UP,
)
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 10.0


class Connections:
    """As many connections as there are threads that use them at once. Thread-safe.

    Nothing is connected until the first statement. A statement that finds its connection cut is
    run once more on another, so every statement has to bear being run twice.

    When the database is away, that is logged once, and one thread at a time tries it again, every
    second; the statements of the others fail at once. One that is silent for as long
    as a `BoundedConnection` bears counts as away.
    """

    def __init__(self, url: str, *, application: str = "leveret") -> None:
        self._conninfo = conninfo(url)
        self._options = connect_options(application)
        self._idle: deque[BoundedConnection] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._away_since: float | None = None
        self._try_at = 0.0
        self._why = ""

    @property
    def away_seconds(self) -> float:
        """How long the database has been away; 0 when it is not."""
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    def run(
        self, statement: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; without any, one row with the number it changed.

        Raises `DatabaseUnavailable` when the database cannot be reached or is not set up, and
        `psycopg.Error` for a statement that it refuses.
        """
        if self._away_since is not None:
            self._take_turn()
        try:
            rows = self._run_twice(statement, values)
        except _UNAVAILABLE as error:
            raise self._away(error) from error
        if self._away_since is not None:
            self._back()
        return rows

    def _run_twice(
        self, statement: str, values: Sequence[object] | Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._run(self._connect(), statement, values)
            try:
                return self._run(connection, statement, values)
            except NoAnswer:  # nor would there be one on another connection
                raise
            except psycopg.Error:
                if not connection.closed:
                    raise

    def _take_turn(self) -> None:
        """Let one thread try the database now and then; raises for the others."""
        with self._lock:
            now = time.monotonic()
            if self._away_since is not None and now < self._try_at:
                raise DatabaseUnavailable(self._why)
            self._try_at = now + _CONNECT_SECONDS + BoundedConnection.answer_seconds

    def _away(self, error: psycopg.Error) -> DatabaseUnavailable:
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _NOT_SET_UP):
            why += "; run `leveret migrate`, or create the tables that are missing"
        with self._lock:
            now = time.monotonic()
            first = self._away_since is None
            if first:
                self._away_since = now
            self._try_at = now + _RETRY_SECONDS
            self._why = why
        if first:
            log.warning("the database cannot be used, and what needs it is put off: %s", why)
        return DatabaseUnavailable(why)

    def _back(self) -> None:
        with self._lock:
            since, self._away_since = self._away_since, None
        if since is not None:
            log.warning("the database is back after %.0f s", time.monotonic() - since)

    def close(self) -> None:
        """Close what is idle now, and the rest when it has been used."""
        with self._lock:
            self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> BoundedConnection:
        return BoundedConnection.connect(self._conninfo, autocommit=True, **self._options)

    def _run(
        self,
        connection: BoundedConnection,
        statement: str,
        values: Sequence[object] | Mapping[str, object],
    ) -> list[tuple[Any, ...]]:
        healthy = False
        try:
            cursor = connection.execute(statement.encode(), values)
            rows = [(cursor.rowcount,)] if cursor.description is None else cursor.fetchall()
            healthy = True
        except psycopg.Error:
            healthy = not connection.closed
            raise
        finally:
            # Whatever else interrupted it may have left it in the middle of an answer.
            if healthy and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
        return rows
