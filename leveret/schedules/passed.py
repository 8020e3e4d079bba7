"""The slots that have passed, in runs: what is recorded of those that nothing was published for.

Pure, and cheap however many they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from leveret.schedules.definition import Definition

__all__ = ["MOST", "Run", "latest", "passed"]

#: More slots than these are not counted.
MOST = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Slots in a row."""

    first: datetime
    last: datetime
    #: None when they are too many to be counted.
    count: int | None


def passed(
    definition: Definition, after: datetime, until: datetime, taken: Collection[datetime]
) -> Iterator[Run]:
    """Yield the slots later than ``after``, up to ``until``, in runs between those ``taken``."""
    first = last = None
    count = 0
    for seen, slot in enumerate(definition.slots(after)):
        if slot > until:
            break
        if seen >= MOST:
            end = latest(definition, slot, until)
            yield Run(first=first or slot, last=end, count=None)
            return
        if slot in taken:
            if first is not None and last is not None:
                yield Run(first=first, last=last, count=count)
            first, count = None, 0
        else:
            first, last, count = first or slot, slot, count + 1
    if first is not None and last is not None:
        yield Run(first=first, last=last, count=count)


def latest(definition: Definition, known: datetime, until: datetime) -> datetime:
    """Return the last slot up to ``until``, where ``known`` is one of them."""
    back = timedelta(seconds=1)
    while until - back > known:
        found = None
        for slot in definition.slots(until - back):
            if slot > until:
                break
            found = slot
        if found is not None:
            return found
        back *= 8
    found = known
    for slot in definition.slots(known):
        if slot > until:
            break
        found = slot
    return found
