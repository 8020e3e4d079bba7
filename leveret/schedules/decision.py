"""What becomes of the slots of a schedule that have not been decided on. Pure.

Whoever leads asks it when a slot is due, and so does whoever takes over, or was held up. Slots are
handled in their order: a slot whose job is put off (its jitter) keeps those after it waiting. So a
slot is *ready* when its own job and those of all slots before it are due.

All undecided slots that are ready are decided on at once. If the first of them has been ready for
no longer than ``grace``, nothing was missed: all are fired, however many. Otherwise nobody led for
a while, and all of them are *missed*: the schedule's policy decides (`Missed`), and those that have
been ready for longer than its window are skipped whatever the policy says.

An outage may be long and a schedule dense, so slots are counted only up to `MOST_COUNTED`, the ends
of a run of skipped ones are found by halving, and of those to be fired `MOST_FIRED` are named; the
rest follow when it is asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Final

from leveret.schedules.definition import Definition
from leveret.schedules.policy import Missed

__all__ = ["MOST_COUNTED", "MOST_FIRED", "Decision", "Range", "count", "decide", "latest"]

#: More slots than these are too many to be counted.
MOST_COUNTED: Final = 10_000
#: So many slots are fired by one decision.
MOST_FIRED: Final = 1_000

_MICROSECOND: Final = timedelta(microseconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Range:
    """Consecutive slots that are not fired, for one reason."""

    first: datetime
    last: datetime
    #: None when there are more than `MOST_COUNTED`.
    count: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the undecided slots, and what comes next."""

    #: These are fired, in this order.
    fire: tuple[datetime, ...]
    #: These are not.
    skipped: tuple[Range, ...]
    #: The last slot that is decided on; None when nothing is to be decided yet.
    last: datetime | None
    #: The first slot that is not; None when there is none any more.
    next_slot: datetime | None
    #: When that one is ready: not later than now, when more has to be decided at once.
    next_due: datetime | None


def decide(definition: Definition, *, after: datetime, now: datetime, grace: timedelta) -> Decision:
    """Return what becomes, at ``now``, of the slots later than ``after``.

    ``after`` is the slot that was decided on last, or since when there are slots.
    """
    first = next(definition.slots(after), None)
    ready = None if first is None else _ready(definition, first)
    if first is None or ready is None or ready > now:
        return Decision((), (), None, first, ready)
    if now - ready <= grace or definition.missed is Missed.ALL:
        return _fire_each(definition, first, now, late=now - ready > grace)
    last = latest(definition, after, now)
    if last is None:  # cannot be: the first of them is ready
        raise AssertionError(f"{first} of {definition.name} is ready and is not")
    fire: tuple[datetime, ...] = ()
    until: datetime | None = last
    if definition.missed is Missed.ONCE and not _too_old(definition, last, now):
        fire = (last,)
        until = latest(definition, after, now, before=last)
    skipped = () if until is None else (_range(definition, first, until),)
    return _decision(definition, fire, skipped, last)


def count(definition: Definition, first: datetime, last: datetime) -> int | None:
    """Return how many slots there are from ``first`` to ``last``; None if too many."""
    found = takewhile(lambda slot: slot <= last, definition.slots(first - _MICROSECOND))
    counted = sum(1 for _ in islice(found, MOST_COUNTED + 1))
    return None if counted > MOST_COUNTED else counted


def latest(
    definition: Definition, after: datetime, now: datetime, *, before: datetime | None = None
) -> datetime | None:
    """Return the last slot later than ``after`` that is ready at ``now``, and before ``before``."""

    def found(slots: Iterator[datetime], until: datetime) -> datetime | None:
        slot = next(slots, None)
        return slot if slot is not None and slot <= until else None

    # Slots that are older than the jitter are ready all; the last of them is found by halving.
    until = now - definition.jitter
    if before is not None:
        until = min(until, before - _MILLISECOND)
    last: datetime | None = None
    low, high = after, until
    while high - low >= _MILLISECOND:
        middle = low + (high - low) // 2
        slot = found(definition.slots(middle), until)
        if slot is None:
            high = middle
        else:
            last = low = slot
    if (slot := found(definition.slots(low), until)) is not None:
        last = slot
    # Of the others, those up to the first that is not due.
    for slot in definition.slots(after if last is None else last):
        if (before is not None and slot >= before) or definition.due(slot) > now:
            break
        last = slot
    return last


def _fire_each(definition: Definition, first: datetime, now: datetime, *, late: bool) -> Decision:
    skipped: tuple[Range, ...] = ()
    if late and definition.window is not None and _too_old(definition, first, now):
        old = latest(definition, first - _MILLISECOND, now - definition.window - _MICROSECOND)
        if old is not None:
            skipped = (_range(definition, first, old),)
            first = old + _MILLISECOND
    ready = takewhile(
        lambda slot: definition.due(slot) <= now, definition.slots(first - _MICROSECOND)
    )
    fire = tuple(islice(ready, MOST_FIRED))
    return _decision(definition, fire, skipped, fire[-1] if fire else skipped[-1].last)


def _decision(
    definition: Definition,
    fire: tuple[datetime, ...],
    skipped: tuple[Range, ...],
    last: datetime,
) -> Decision:
    following = next(definition.slots(last), None)
    ready = None if following is None else _ready(definition, following)
    return Decision(fire, skipped, last, following, ready)


def _ready(definition: Definition, slot: datetime) -> datetime:
    """Return when the jobs of ``slot`` and of all slots before it are due."""
    due = definition.due(slot)
    if not definition.jitter:
        return due
    # What is older than the jitter is due by the time of the slot itself.
    for earlier in definition.slots(slot - definition.jitter):
        if earlier >= slot:
            return due
        due = max(due, definition.due(earlier))
    return due


def _too_old(definition: Definition, slot: datetime, now: datetime) -> bool:
    return definition.window is not None and now - _ready(definition, slot) > definition.window


def _range(definition: Definition, first: datetime, last: datetime) -> Range:
    return Range(first, last, count(definition, first, last), "missed")
