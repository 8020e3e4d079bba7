"""Telling those who wait that a job has changed.

Whoever waits for a job writes a row into ``watches`` and listens on the channel ``leveret_jobs``
(`leveret.results` does both). Whoever changes rows of ``jobs`` calls `notify`: PostgreSQL then
sends the ids of the jobs that somebody watches, when the transaction commits. While nobody waits,
that is one look into an empty table.

Best right after the commit of the change. Within its transaction it does as well, but for a watch
that is written between that look and the commit; such a waiter finds the change a moment later,
when it looks for the second time.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from sqlalchemy import text
from sqlalchemy.engine import Connection

__all__ = ["CHANNEL", "notify"]

#: The channel on which the ids of changed jobs are sent.
CHANNEL = "leveret_jobs"

_NOTIFY = (
    f"SELECT pg_notify('{CHANNEL}', job_id) FROM"  # noqa: S608 - a constant
    " (SELECT DISTINCT job_id FROM watches WHERE job_id = ANY({ids}) AND until > now()) AS watched"
)
_FOR_SQLALCHEMY = text(_NOTIFY.format(ids="CAST(:ids AS text[])"))
_FOR_PSYCOPG = _NOTIFY.format(ids="%s::text[]")


def notify(connection: Connection | psycopg.Connection[object], ids: Iterable[str]) -> None:
    """Tell whoever waits for one of these jobs that it has changed, once the caller commits.

    In the caller's transaction; one statement for all ids, none when there are none.
    """
    changed = list(dict.fromkeys(ids))
    if not changed:
        return
    if isinstance(connection, Connection):
        connection.execute(_FOR_SQLALCHEMY, {"ids": changed})
    else:
        connection.execute(_FOR_PSYCOPG, (changed,))
