"""Dramatiq with the state of every job in PostgreSQL, the way it is commonly done.

A middleware inserts a row when a job is enqueued and updates it when the job starts and ends, each
in a transaction of its own, on a connection of the thread. Run as a program it makes the table.
"""

import os
import threading
from typing import Any

import dramatiq
import psycopg

from tests.benchmarks.contestants.dramatiq import Client, broker, flaky, noop

__all__ = ["Client", "Tracking", "broker", "flaky", "noop"]

_TABLE = (
    "CREATE TABLE tracked (id text PRIMARY KEY, actor text, state text, enqueued_at timestamptz,"
    " started_at timestamptz, ended_at timestamptz, error text);"
    "CREATE INDEX ON tracked (state, enqueued_at)"
)


class Tracking(dramatiq.Middleware):
    """Keeps a row for each job."""

    def __init__(self) -> None:
        self._own = threading.local()

    def _execute(self, statement: str, *values: Any) -> None:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True)
            self._own.connection = connection
        connection.execute(statement, values)

    def after_enqueue(self, broker: Any, message: Any, delay: Any) -> None:
        """Insert the row."""
        self._execute(
            "INSERT INTO tracked VALUES (%s, %s, 'queued', now()) ON CONFLICT DO NOTHING",
            message.message_id,
            message.actor_name,
        )

    def before_process_message(self, broker: Any, message: Any) -> None:
        """Say that it runs."""
        self._execute(
            "UPDATE tracked SET state = 'running', started_at = now() WHERE id = %s",
            message.message_id,
        )

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: Any = None
    ) -> None:
        """Say how it ended."""
        self._execute(
            "UPDATE tracked SET state = %s, ended_at = now(), error = %s WHERE id = %s",
            "failed" if exception else "succeeded",
            str(exception) if exception else None,
            message.message_id,
        )


broker.add_middleware(Tracking())

if __name__ == "__main__":
    with psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(_TABLE)
