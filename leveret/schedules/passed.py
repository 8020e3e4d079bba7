"""The slots that have passed, in runs: what is recorded of those that nothing was published for.

Pure, and cheap however many they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from leveret.schedules.decision import MOST_COUNTED, latest
from leveret.schedules.definition import Definition

__all__ = ["Run", "passed"]


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
        if seen >= MOST_COUNTED:
            end = latest(replace(definition, jitter=timedelta(0)), slot, until)
            yield Run(first=first or slot, last=end or slot, count=None)
            return
        if slot in taken:
            if first is not None and last is not None:
                yield Run(first=first, last=last, count=count)
            first, count = None, 0
        else:
            first, last, count = first or slot, slot, count + 1
    if first is not None and last is not None:
        yield Run(first=first, last=last, count=count)
