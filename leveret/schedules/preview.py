"""What a schedule does in a period, with the changes of its zone's clocks marked. Pure.

For people: each entry is a slot with the local time that it has, and an entry of its own tells of a
time that clocks leave out, where the policy is that there is no slot for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final

from leveret.errors import InvalidSchedule
from leveret.schedules.definition import Definition
from leveret.schedules.policy import Doubled, Skipped
from leveret.schedules.trigger import Cron, Trigger
from leveret.schedules.zone import Stretch, clock_of

__all__ = ["Entry", "Mark", "Preview", "preview"]

_MICROSECOND: Final = timedelta(microseconds=1)


class Mark(StrEnum):
    """What a change of the clocks has to do with an entry."""

    #: Clocks leave this time out; there is no slot.
    SKIPPED = "skipped"
    #: The first moment after a gap, for a time that clocks leave out.
    MOVED = "moved"
    #: Clocks show this time twice, and this is the first of two slots.
    FIRST = "first"
    #: … the second of two slots.
    SECOND = "second"
    #: Clocks show this time twice, and the slot is at the first; there is no second.
    DOUBLED = "doubled"


@dataclass(frozen=True, slots=True)
class Entry:
    """A slot, or a time for which there is none."""

    #: In UTC; None for a time that is left out.
    slot: datetime | None
    #: What the zone's clock shows at the slot, or would have to show for one. Naive.
    local: datetime
    #: How far that clock is ahead of UTC; of a time that is left out: after the gap.
    offset: timedelta
    mark: Mark | None = None
    #: The time that the slot stands for, if it was moved: the first that was left out. Naive.
    wanted: datetime | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The entries of a period, in the order of time."""

    #: The IANA's name of the zone that local times are of.
    zone: str
    entries: tuple[Entry, ...]
    #: Whether there are more in the period.
    truncated: bool

    @property
    def slots(self) -> tuple[datetime, ...]:
        """The slots alone."""
        return tuple(entry.slot for entry in self.entries if entry.slot is not None)


def preview(
    definition: Definition, start: datetime, end: datetime | None = None, limit: int = 100
) -> Preview:
    """Return the first ``limit`` entries from ``start`` to ``end``, both of which belong to it.

    Without an end the last entry is a slot, and the schedule may end before the limit. Raises
    `InvalidSchedule` for a period or a limit that cannot be.
    """
    for name, moment in (("start", start), ("end", end)):
        if moment is not None and moment.tzinfo is None:
            raise InvalidSchedule(name, moment, "it needs a time zone, or an offset from UTC")
    if end is not None and end < start:
        raise InvalidSchedule("end", end, f"it is before the start, {start}")
    if limit < 1:
        raise InvalidSchedule("limit", limit, "it is at least 1")
    entries = tuple(islice(_entries(definition, start, end), limit + 1))
    return Preview(definition.trigger.zone, entries[:limit], len(entries) > limit)


def _entries(definition: Definition, start: datetime, end: datetime | None) -> Iterator[Entry]:
    trigger = definition.trigger
    start, end = _within(definition, start, end)
    stretches = clock_of(trigger.zone).stretches(_naive(start))
    stretch, following = next(stretches, None), next(stretches, None)
    if stretch is None:
        return
    if stretch.begin == _naive(start):
        yield from _left_out(trigger, stretch)
    for slot in definition.slots(start - _MICROSECOND):
        if end is not None and slot > end:
            break
        moment = _naive(slot)
        while moment >= stretch.end and following is not None:
            stretch, following = following, next(stretches, None)
            yield from _left_out(trigger, stretch)
        yield _entry(trigger, slot, stretch)
    if end is None or trigger.skipped is not Skipped.SKIP:
        return
    while following is not None and following.begin <= _naive(end):
        yield from _left_out(trigger, following)
        following = next(stretches, None)


def _entry(trigger: Trigger, slot: datetime, stretch: Stretch) -> Entry:
    moment = _naive(slot)
    local = moment + stretch.offset
    if isinstance(trigger, Cron) and trigger.skipped is Skipped.NEXT and moment == stretch.begin:
        wanted = next(trigger.gap(stretch), None)
        if wanted is not None:
            return Entry(slot, local, stretch.offset, Mark.MOVED, wanted)
    mark = None
    if local < stretch.seen:
        mark = Mark.SECOND
    elif clock_of(trigger.zone).again(moment):
        one = isinstance(trigger, Cron) and trigger.doubled is Doubled.FIRST
        mark = Mark.DOUBLED if one else Mark.FIRST
    return Entry(slot, local, stretch.offset, mark)


def _left_out(trigger: Trigger, stretch: Stretch) -> Iterator[Entry]:
    """Yield the times that are left out where a stretch begins, if there is no slot for them."""
    if isinstance(trigger, Cron) and trigger.skipped is Skipped.SKIP:
        for wall in trigger.gap(stretch):
            yield Entry(None, wall, stretch.offset, Mark.SKIPPED)


def _within(
    definition: Definition, start: datetime, end: datetime | None
) -> tuple[datetime, datetime | None]:
    """Return the part of a period in which the schedule has slots."""
    if definition.start is not None:
        start = max(start, definition.start)
    if definition.end is not None:
        end = definition.end if end is None else min(end, definition.end)
    return start, end


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
