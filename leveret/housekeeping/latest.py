"""Looking up what became of the latest job of a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

__all__ = ["Success", "latest"]

# One probe for each slot, of one partition: the time of a slot's job is the slot.
_LATEST = text(
    "SELECT s.slot, s.due_at, j.updated_at AS recorded_at, j.result FROM schedule_slots AS s"
    " JOIN LATERAL (SELECT jobs.state, jobs.updated_at, jobs.result FROM jobs"
    "   WHERE jobs.id = s.job_id AND jobs.created_at = s.slot LIMIT 1) AS j ON true"
    " WHERE s.schedule = :schedule AND s.slot > :after AND s.outcome = 'fired'"
    " AND s.cause IN ('schedule', 'run') AND j.state = 'succeeded'"
    " ORDER BY s.slot DESC LIMIT 1"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Success:
    """A job of a schedule that succeeded. All times are the database's."""

    slot: datetime
    due_at: datetime
    #: When the ledger was told.
    recorded_at: datetime
    #: What the actor returned, as JSON text.
    result: bytes | None


def latest(connection: Connection, schedule: str, *, after: datetime) -> Success | None:
    """Return the latest job of a schedule that succeeded, of those with slots later than ``after``.

    It costs a probe for each slot since. Jobs of backfills do not count: they were due long ago.
    """
    values: dict[str, Any] = {"schedule": schedule, "after": after}
    row = connection.execute(_LATEST, values).one_or_none()
    return None if row is None else Success(**row._mapping)  # noqa: SLF001 - SQLAlchemy's own name
