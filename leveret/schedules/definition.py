"""What somebody has decided about a schedule, as a value. Pure.

Everything that follows from it follows alike in every process: which moments are its slots, when
the job of a slot is due, and the id of that job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

from leveret.errors import InvalidSchedule
from leveret.schedules.policy import Missed, Overlap
from leveret.schedules.trigger import Trigger

__all__ = ["Definition", "job_id"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_JITTER = timedelta(days=1)
_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A schedule: when which job is published. Raises `InvalidSchedule` for what cannot be."""

    name: str
    #: Name of the actor.
    actor: str
    trigger: Trigger
    #: The actor's named arguments.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: The pool; None leaves it to the actor.
    queue: str | None = None
    #: The rest of the job, by the names of `leveret.outbox.row.OPTIONS`.
    options: Mapping[str, Any] = field(default_factory=dict)
    #: A job is published up to so much later than its slot, always as much for the same slot.
    jitter: timedelta = timedelta(0)
    #: No slot before this time, and none after that.
    start: datetime | None = None
    end: datetime | None = None
    missed: Missed = Missed.ONCE
    #: Slots that are older are skipped, whatever `missed` says.
    window: timedelta | None = None
    overlap: Overlap = Overlap.ALLOW
    description: str | None = None

    def __post_init__(self) -> None:
        """Raise `InvalidSchedule` for what cannot be."""
        _check_name(self.name)
        for name, moment in (("start", self.start), ("end", self.end)):
            if moment is not None and moment.tzinfo is None:
                raise InvalidSchedule(name, moment, "it needs a time zone, or an offset from UTC")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise InvalidSchedule("end", self.end, f"it is not later than the start, {self.start}")
        if self.window is not None and self.window <= timedelta(0):
            raise InvalidSchedule(
                "window", self.window, "it has to be longer than nothing; leave it out for no limit"
            )
        if not timedelta(0) <= self.jitter <= _MOST_JITTER:
            raise InvalidSchedule("jitter", self.jitter, "it is from nothing to one day")
        shortest = self.trigger.shortest
        if shortest is not None and self.jitter and self.jitter >= shortest:
            raise InvalidSchedule(
                "jitter",
                self.jitter,
                f"it has to be shorter than the time between two slots, {shortest}, so that their "
                "jobs keep their order",
            )

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``after``, in their order, in UTC; without end, mostly."""
        if self.start is not None and after < self.start:
            after = self.start - _MICROSECOND
        slots = self.trigger.slots(after)
        if self.end is None:
            return slots
        end = self.end
        return takewhile(lambda slot: slot <= end, slots)

    def due(self, slot: datetime) -> datetime:
        """Return when the job of a slot is published: the slot, plus its share of the jitter."""
        if not self.jitter:
            return slot
        share = int.from_bytes(_digest(self.name, slot)[16:20]) / 2**32
        return slot + self.jitter * share


def job_id(schedule: str, slot: datetime) -> str:
    """Return the id of a slot's job: a UUIDv7 of the slot's time, the rest a digest of both.

    The same in every process, so that a slot that is fired twice is one job to everybody.
    """
    milliseconds = (slot - _EPOCH) // timedelta(milliseconds=1)
    rest = _digest(schedule, slot)
    high = int.from_bytes(rest[:2]) & 0x0FFF
    low = int.from_bytes(rest[2:10]) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    text = f"{milliseconds:012x}7{high:03x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise InvalidSchedule("name", name, f"it has 1 to {_LONGEST_NAME} characters")
    for position, character in enumerate(name, 1):
        if character.isspace() or character == "/" or not character.isprintable():
            raise InvalidSchedule(
                "name",
                name,
                "it has no spaces, slashes or control characters; write report.daily",
                position=position,
            )
    if not name[0].isalnum():
        raise InvalidSchedule("name", name, "it begins with a letter or a digit", position=1)


def _digest(schedule: str, slot: datetime) -> bytes:
    microseconds = (slot - _EPOCH) // _MICROSECOND
    return hashlib.sha256(f"leveret:{schedule}\0{microseconds}".encode()).digest()
