"""What is in an outbox, for whoever looks after it. The relay's own work is in `services.relay`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import text
from sqlalchemy.engine import Connection

__all__ = ["Entry", "Standing", "entries", "release"]


class Standing(StrEnum):
    """How a row of an outbox stands."""

    #: The next relay that looks publishes it.
    WAITING = "waiting"
    #: A queue was full; it is tried again in some seconds.
    PUT_OFF = "put-off"
    #: It is due beyond the delay wheel's horizon, and waits here until it is not.
    NOT_DUE = "not-due"
    #: It cannot be published; nobody tries again unless told to.
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A job in an outbox."""

    job_id: str
    actor: str
    queue: str | None
    created_at: datetime
    standing: Standing
    #: When it is looked at again, if that is not now.
    held_until: datetime | None
    #: Why it was not published, when somebody tried.
    error: str | None
    body_bytes: int


# What is infinite is no time that a driver could read.
_ENTRIES = text("""
    SELECT job_id, actor, queue, created_at, octet_length(body) AS body_bytes,
        CASE WHEN isfinite(hold_until) AND hold_until > now() THEN hold_until END AS held_until,
        CASE
            WHEN hold_until = 'infinity' THEN 'failed'
            WHEN hold_until <= now() THEN 'waiting'
            WHEN error IS NULL THEN 'not-due'
            ELSE 'put-off'
        END AS standing,
        error
    FROM leveret_outbox
    WHERE hold_until = 'infinity' OR NOT CAST(:failed AS boolean)
    ORDER BY hold_until > now(), id
    LIMIT :limit
""")
# The relay is told as an insert tells it; it looks for ids that it has passed, too.
_RELEASE = text("""
    WITH released AS (
        UPDATE leveret_outbox SET hold_until = '-infinity', error = NULL
        WHERE error IS NOT NULL AND (job_id = ANY(:ids) OR CAST(:every AS boolean))
        RETURNING job_id
    ), told AS (SELECT pg_notify('leveret_outbox', ''))
    SELECT job_id FROM released, told ORDER BY job_id
""")


def entries(connection: Connection, *, failed: bool = False, limit: int = 50) -> list[Entry]:
    """Return the jobs of an outbox, in the order in which they leave, or only the ``failed``."""
    rows = connection.execute(_ENTRIES, {"failed": failed, "limit": limit}).mappings()
    return [Entry(**{**row, "standing": Standing(row["standing"])}) for row in rows]


def release(connection: Connection, job_ids: Sequence[str] | None) -> list[str]:
    """Have relays try again what failed or was put off; return the ids of these jobs.

    ``job_ids`` are the jobs, or None for all. In the caller's transaction.
    """
    values = {"ids": list(job_ids or ()), "every": job_ids is None}
    return list(connection.execute(_RELEASE, values).scalars())
