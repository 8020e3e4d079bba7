"""Firing a slot because somebody wants it: now, without a scheduler.

The slot's row and its job's row in the outbox are written in the caller's transaction. Its moment
is the database's now, to the millisecond, and never one that the schedule's own trigger names:
those are the scheduler's to decide on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from leveret import outbox
from leveret.errors import UnknownSchedule
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.job import job_of
from leveret.schedules.store import get
from leveret.schedules.write import database_time, record
from leveret.store.schema import ScheduleSlot

__all__ = ["Fired", "publish", "run"]

_MILLISECOND = timedelta(milliseconds=1)
#: Larger than any body: the size was checked when the schedule was made.
_CHECKED = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class Fired:
    """A slot, and the id of its job."""

    slot: datetime
    job_id: str


def run(connection: Connection, name: str, *, by: str, address: str | None = None) -> Fired:
    """Publish a schedule's job now, also if it is paused, or the last one still runs.

    Raises `UnknownSchedule`. What the schedule does by itself is not changed by it.
    """
    found = get(connection, name)
    if found is None:
        raise UnknownSchedule(name)
    now = database_time(connection)
    slot = now.replace(microsecond=now.microsecond // 1000 * 1000)
    while not _is_free(connection, found.definition, slot, by):
        slot += _MILLISECOND
    publish(connection, found.definition, [slot])
    fired = Fired(slot=slot, job_id=job_id(name, slot))
    detail = {"slot": slot.isoformat(), "job_id": fired.job_id}
    record(connection, name, "run", by, detail, address=address)
    return fired


def publish(connection: Connection, definition: Definition, slots: Sequence[datetime]) -> None:
    """Write the jobs of slots, which have their rows, into the outbox."""
    outbox.enqueue_many(
        connection, (job_of(definition, slot) for slot in slots), max_body_bytes=_CHECKED
    )


def columns(
    definition: Definition,
    slot: datetime,
    *,
    cause: Literal["run", "backfill"],
    by: str,
    due: datetime,
) -> dict[str, object]:
    """Return the row of a slot that somebody wants to be fired."""
    return {
        "schedule": definition.name,
        "slot": slot,
        "outcome": "fired",
        "job_id": job_id(definition.name, slot),
        "cause": cause,
        "asked_by": by,
        "due_at": due,
    }


def _is_free(connection: Connection, definition: Definition, slot: datetime, by: str) -> bool:
    """Take a moment for the slot; return whether it was to be had."""
    if next(definition.trigger.slots(slot - _MILLISECOND), None) == slot:
        return False
    made = connection.execute(
        insert(ScheduleSlot)
        .values(columns(definition, slot, cause="run", by=by, due=slot))
        .on_conflict_do_nothing()
        .returning(ScheduleSlot.slot)
    ).first()
    return made is not None
