"""The canary: one job a minute whose way through everything is timed.

The schedule ``leveret.beat`` is fired like any other: the scheduler writes its job into the outbox,
a relay publishes it, the broker delivers it, a worker runs it, the recorder writes down that it
succeeded. The time from when the slot was due to that row, both by the database's clock, is the
round trip. Whatever is broken on the way, the canary stops coming back, and its age grows.

It is observed from the database, by the schedulers, and not reported by the worker: what shows
that jobs do not get through must not be one of them. A scheduler that cannot ask the database lets
the age grow on its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.engine import Connection

from leveret.housekeeping.actors import BEAT
from leveret.housekeeping.latest import latest

__all__ = ["Canary", "observe"]

#: Where the latest one is looked for, and where else if it is not there.
_NEAR = timedelta(hours=1)
_FAR = timedelta(days=2)

_SCHEDULE = text(
    "SELECT clock_timestamp() AS now, since FROM schedules"
    " WHERE name = :name AND paused_at IS NULL AND next_due_at IS NOT NULL"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """How the canary fares."""

    #: The latest one that came back; None if none did in the last two days.
    slot: datetime | None = None
    #: Its round trip.
    seconds: float | None = None
    #: Since it was due, or since there are to be canaries if none has come back (at most two days
    #: then); None when there are to be none: there is no such schedule, or it is paused.
    age_seconds: float | None = None


def observe(connection: Connection) -> Canary:
    """Look how the canary fares; two short reads. Times are the database's."""
    schedule = connection.execute(_SCHEDULE, {"name": BEAT}).one_or_none()
    if schedule is None:
        return Canary()
    now: datetime = schedule.now
    for window in (_NEAR, _FAR):
        found = latest(connection, BEAT, after=now - window)
        if found is not None:
            break
    else:
        since = max(schedule.since, now - _FAR)
        return Canary(age_seconds=max(0.0, (now - since).total_seconds()))
    age = (now - found.due_at).total_seconds()
    # A schedule that was paused for an hour has had no canary that could have come back.
    age = min(age, max((now - schedule.since).total_seconds(), 0.0))
    return Canary(
        slot=found.slot,
        seconds=max(0.0, (found.recorded_at - found.due_at).total_seconds()),
        age_seconds=max(0.0, age),
    )
