"""One connection to the database, for single statements, none of which may hang.

A connection can fall silent without being closed: the network swallows what is sent, or the
server's machine stands still. TCP notices after minutes, and what a scheduler does is late after a
second. So somebody else looks (`Line.watch`), and cuts a connection that has not answered in time;
the statement then fails like any other whose connection was lost, and the next has a new one.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.rows import dict_row, tuple_row

from leveret.store.engine import connect_options, conninfo
from leveret.store.lease import elapsed_seconds

__all__ = ["Line"]

_CONNECT_SECONDS = 2


class Line:
    """Runs statements in autocommit mode, one at a time. Not to be used by two threads at once.

    But `watch` and `cut` are for other threads.
    """

    def __init__(self, url: str, *, patience: float, application: str) -> None:
        self._conninfo = conninfo(url)
        self._options = {**connect_options(application), "connect_timeout": _CONNECT_SECONDS}
        self._patience = patience
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()
        #: The socket of the statement that is under way, and since when it is.
        self._waiting: tuple[int, float] | None = None

    def run(self, statement: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, none where it has none.

        Raises `psycopg.Error`, also for a connection that was cut: then nobody knows whether the
        statement has been run.
        """
        return self._run(statement, values, tuple_row)

    def mappings(
        self, statement: str, values: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Do the same as `run`, with rows by the names of their columns."""
        return self._run(statement, values, dict_row)

    def _run(self, statement: str, values: Mapping[str, Any] | None, rows: Any) -> list[Any]:
        connection = self._connection
        if connection is None:
            connection = psycopg.connect(self._conninfo, autocommit=True, **self._options)
            self._connection = connection
        healthy = False
        with self._lock:
            self._waiting = (connection.fileno(), elapsed_seconds())
        try:
            with connection.cursor(row_factory=rows) as cursor:
                cursor.execute(statement.encode(), values)
                found = [] if cursor.description is None else cursor.fetchall()
            healthy = True
        except psycopg.Error:
            healthy = not connection.broken
            raise
        finally:
            with self._lock:
                self._waiting = None
            if not healthy:
                self.close()
        return found

    def watch(self) -> None:
        """Cut the connection if a statement has been waiting for too long."""
        waiting = self._waiting
        if waiting is not None and elapsed_seconds() - waiting[1] > self._patience:
            self.cut()

    def cut(self) -> None:
        """End the statement that is under way, if one is."""
        with self._lock:
            if self._waiting is None:
                return
            with suppress(OSError), socket.socket(fileno=os.dup(self._waiting[0])) as end:
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next statement opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
