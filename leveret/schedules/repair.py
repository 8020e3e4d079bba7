"""Making good what `leveret.schedules.gaps` has found.

Both look again before they do anything, in the caller's transaction: what has changed since is left
alone. Who wanted it is written down by the caller.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.engine import Connection

from leveret.schedules import store
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.run import publish
from leveret.store.identity import find_times

__all__ = ["fire", "publish_again"]

_SHORT = timedelta(microseconds=1)
# The schedule's row is locked, so that two repairs do not both find the slot missing.
_LOCK = text("SELECT FROM schedules WHERE name = :schedule FOR UPDATE")
_DECIDED = text(
    "SELECT FROM schedule_slots WHERE schedule = :schedule AND (slot = :slot"
    " OR (until IS NOT NULL AND slot <= :slot AND until >= :slot)) LIMIT 1"
)
_FIRE = text(
    "INSERT INTO schedule_slots (schedule, slot, outcome, job_id, cause, asked_by, due_at)"
    " VALUES (:schedule, :slot, 'fired', :job_id, 'repair', :by, :due_at)"
    " ON CONFLICT DO NOTHING"
)
_FIRED = text(
    "SELECT FROM schedule_slots WHERE schedule = :schedule AND slot = :slot AND job_id = :job_id"
    " AND outcome = 'fired' FOR UPDATE"
)
_IN_OUTBOX = text("SELECT FROM leveret_outbox WHERE job_id = :job_id LIMIT 1")
_IN_LEDGER = text("SELECT FROM jobs WHERE id = :job_id AND created_at = :time")


def fire(connection: Connection, schedule: str, slot: datetime, *, by: str) -> bool:
    """Fire a slot that has no row, with the cause ``repair``; tell whether it was done.

    Not when the slot was decided on meanwhile, or when it is none of the schedule's any more.
    """
    values = {"schedule": schedule, "slot": slot}
    connection.execute(_LOCK, values)
    known = store.get(connection, schedule)
    if known is None or slot <= known.since or not _is_slot(known.definition, slot):
        return False
    if connection.execute(_DECIDED, values).first() is not None:
        return False
    due_at = known.definition.due(slot)
    row = values | {"job_id": job_id(schedule, slot), "by": by, "due_at": due_at}
    if not connection.execute(_FIRE, row).rowcount:
        return False
    publish(connection, known.definition, [slot])
    return True


def publish_again(connection: Connection, schedule: str, slot: datetime) -> bool:
    """Publish the job of a fired slot again, under its id; tell whether it was done.

    Not when somebody knows the job by now, or when the schedule that says what it was is gone.
    """
    name = job_id(schedule, slot)
    values = {"schedule": schedule, "slot": slot, "job_id": name}
    if connection.execute(_FIRED, values).first() is None:
        return False
    if connection.execute(_IN_OUTBOX, values).first() is not None:
        return False
    time = find_times(connection, [name])[name]
    if connection.execute(_IN_LEDGER, values | {"time": time}).first() is not None:
        return False
    known = store.get(connection, schedule)
    if known is None:
        return False
    publish(connection, known.definition, [slot])
    return True


def _is_slot(definition: Definition, slot: datetime) -> bool:
    return next(definition.slots(slot - _SHORT), None) == slot
