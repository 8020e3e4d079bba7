"""What the relay asks of the table ``leveret_outbox``: all its SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from services.relay.message import Row

__all__ = ["CHANNEL", "READY", "RELEASED", "Table"]

#: What the table's trigger notifies.
CHANNEL = "leveret_outbox"
#: Bodies up to this size are read with their rows, larger ones when their turn comes.
_INLINE_BYTES = 32 * 1024

# Every column in a form that any value of it can be read in: a timestamp of the year 300000, or a
# JSON of a thousand levels, must not keep the rows beside it from being read.
_COLUMNS = f"""id, job_id, actor, queue, options::text, extract(epoch FROM due_at)::float8,
    properties, routing_key, CASE WHEN octet_length(body) <= {_INLINE_BYTES} THEN body END,
    octet_length(body), extract(epoch FROM created_at)::float8"""
# ruff: noqa: S608 - the columns are those above
# In the order of an index, always: where statistics are of the time when the table was empty, which
# it mostly is, the planner would sort all that is there to find the first few hundred.
_BEGIN = """BEGIN; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_seqscan = off; """
#: The next rows behind an id.
READY = f"""{_BEGIN} SELECT {_COLUMNS} FROM leveret_outbox
    WHERE hold_until = '-infinity' AND id > %s ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"""
#: Rows whose time has come.
RELEASED = f"""{_BEGIN} SELECT {_COLUMNS} FROM leveret_outbox
    WHERE hold_until > '-infinity' AND hold_until <= now()
    ORDER BY hold_until, id LIMIT %s FOR UPDATE SKIP LOCKED"""
_BODIES = "SELECT id, body FROM leveret_outbox WHERE id = ANY(%s)"
_DELETE = "DELETE FROM leveret_outbox WHERE id = ANY(%s)"
_HOLD = "UPDATE leveret_outbox SET hold_until = %s WHERE id = %s"
_PUT_OFF = "UPDATE leveret_outbox SET hold_until = now() + %s, error = %s WHERE id = %s"
_SET_ASIDE = "UPDATE leveret_outbox SET hold_until = 'infinity', error = %s WHERE id = %s"
_COUNTS = """SELECT
    (SELECT count(*) FROM leveret_outbox WHERE hold_until = '-infinity')
    + (SELECT count(*) FROM leveret_outbox WHERE hold_until > '-infinity' AND hold_until <= now()),
    coalesce(extract(epoch FROM now() - least(
        (SELECT created_at FROM leveret_outbox WHERE hold_until = '-infinity' ORDER BY id LIMIT 1),
        (SELECT min(created_at) FROM leveret_outbox
            WHERE hold_until > '-infinity' AND hold_until <= now())
    )), 0)::float8,
    (SELECT count(*) FROM leveret_outbox WHERE hold_until = 'infinity')"""
_MOST_ERROR_TEXT = 2000


class Table:
    """The outbox of one database, over one connection in autocommit mode.

    What takes rows begins a transaction, with the same message to the server; `commit` ends it.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._cursor = connection.cursor(row_factory=tuple_row)
        #: Several statements go in one message where their values are written into them here.
        self._taking = psycopg.ClientCursor(connection, row_factory=tuple_row)

    def take_ready(self, after: int, limit: int) -> list[Row]:
        """Lock and return rows behind an id, in the order of their ids."""
        return self._take(READY, (after, limit))

    def take_released(self, limit: int) -> list[Row]:
        """Lock and return rows that were held until now."""
        return self._take(RELEASED, (limit,))

    def _take(self, query: str, values: tuple[object, ...]) -> list[Row]:
        self._taking.execute(query, values)
        while self._taking.nextset():
            pass
        found = self._taking.fetchall()
        return [
            Row(
                id=line[0],
                job_id=line[1],
                actor=line[2],
                queue=line[3],
                options=line[4],
                due_at=line[5],
                properties=line[6],
                routing_key=line[7],
                body=line[8],
                body_bytes=line[9],
                created_at=line[10],
            )
            for line in found
        ]

    def bodies(self, ids: Sequence[int]) -> dict[int, bytes]:
        """Return bodies that were not read with their rows."""
        return dict(self._cursor.execute(_BODIES, (list(ids),)).fetchall())

    def delete(self, ids: Sequence[int]) -> None:
        """Delete rows."""
        self._cursor.execute(_DELETE, (list(ids),))

    def hold(self, row: int, until: datetime) -> None:
        """Leave a row alone until then."""
        self._cursor.execute(_HOLD, (until, row))

    def put_off(self, row: int, delay: timedelta, error: str) -> None:
        """Leave a row alone for a while."""
        self._cursor.execute(_PUT_OFF, (delay, _kept(error), row))

    def set_aside(self, row: int, error: str) -> None:
        """Leave a row alone for good, with the reason."""
        self._cursor.execute(_SET_ASIDE, (_kept(error), row))

    def counts(self) -> tuple[int, float, int]:
        """Return how many rows could leave now, the oldest one's age in seconds, the set aside."""
        line = self._cursor.execute(_COUNTS).fetchone()
        assert line is not None  # noqa: S101 - it has no FROM
        return line[0], max(0.0, line[1]), line[2]

    def commit(self) -> None:
        """Commit what was done."""
        self._connection.commit()

    def rollback(self) -> None:
        """Undo it, and let the rows go."""
        self._connection.rollback()


def _kept(error: str) -> str:
    return error.replace("\0", "\\0")[:_MOST_ERROR_TEXT]
