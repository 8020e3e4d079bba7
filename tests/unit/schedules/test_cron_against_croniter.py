"""Cron expressions in time zones against an oracle that shares nothing with them.

croniter names the wall-clock times; it is asked without any zone, because what it does where clocks
change is its own affair. Each of its times is then mapped to UTC here: there and back again by
`zoneinfo`, for either fold. What does not come back is in a gap, whose end is found by halving;
what comes back twice is doubled. So days on which clocks change are compared, too.

Two years, ten zones. Expressions that name more than some thousand times are compared around all
changes of the zones' clocks and on some other days; with LEVERET_TEST_SLOTS=all, everywhere (that
takes an hour, half of it for the one that names every second).

Where croniter (7.0) differs, it is left out here, and tabled by hand in ``test_cron.py``:

- ``L5`` is its ``5L``; it has no ``LW``, ``L-2``, ``FRIL``, nor ``L`` beside others in that field.
- ``31W`` falls on the last Monday to Friday of a shorter month; here there is none.
- ``*/90`` is taken for ``0``; here it is refused.
- ``*/1`` in a field of days counts as a restriction; here it is ``*``.
- With ``#`` in the day of week the day of month is forgotten; here either matches.
- A range across the field's end with a step (``22-6/3``) goes on one too late after that end.
- Seconds come sixth unless it is told otherwise.
- ``0 0 30 2 *`` fails only when it is asked for a time.
"""

# ruff: noqa: DTZ001 - what walls show has no zone
from __future__ import annotations

import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from leveret.schedules import Cron, Doubled, Skipped

ALL = os.environ.get("LEVERET_TEST_SLOTS") == "all"

BEGIN, END = datetime(2025, 1, 1, 12), datetime(2027, 1, 1, 12)
DAY = timedelta(days=1)

ZONES = [
    "UTC",
    "Asia/Kolkata",
    "America/Sao_Paulo",
    "Europe/Lisbon",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Africa/Cairo",  # at midnight, and back at midnight
    "America/Santiago",  # at midnight, in the south
    "Africa/Casablanca",  # back for Ramadan
    "Pacific/Chatham",  # 12:45 ahead
]

TIMES = ["0 0", "30 2", "59 23", "15 3,15", "*/20 1", "7/23 22-1"]

DAYS = [
    "* * *",
    "1 * *",
    "31 * ?",
    "L * *",
    "28-31 * *",
    "25-5 * *",
    "*/10 * *",
    "10-20/3 2,7 *",
    "29 2 *",
    "L 2 *",
    "15W * *",
    "1W */3 *",
    "1-7 * 1-5",
    "1,15 * MON",
    "13 * FRI",
    "L * MON",
    "? * 0",
    "? JAN-MAR SAT,SUN",
    "* NOV-FEB *",
    "* */3 7",
    "* 6/2 2-4",
    "* * 1-5",
    "* * FRI-MON",
    "* * 1/2",
    "* * 0-7/3",
    "* * 1#2",
    "* * FRI#4",
    "* * 5#5",
    "* * L5",
    "* 10 L0",
    "3/9 * 2",
]

SPECIAL = [
    "@yearly",
    "@monthly",
    "@weekly",
    "@daily",
    "0 0 25 12 *",
    "0 12 1 1,4,7,10 *",
    "5 0 * 8 *",
    "15 14 1 * *",
    "0 22 * * 1-5",
    "5 4 * * sun",
    "0 0,12 1 */2 *",
    "0 4 8-14 * *",
    "0 0 1,15 * 3",
    "30 6 * * Mon,Wed,Fri",
    "10,50 1,2 * 3,10 SUN",
    "45 15 10 1 * *",
    "*/20 59 23 * * FRI",
    "0 30 2 L * *",
    "58-3 0 1 15 * *",
]

DENSE = [
    "@hourly",
    "0 */2 * * *",
    "23 0-20/2 * * *",
    "0 22-2 * * *",
    "*/15 * * * *",
    "*/5 9-17 * * 1-5",
    "50-5 * * * *",
    "*/7 1-3 * * *",
    "* * * * *",
    "* 1 * * *",
    "* * * 3,10 SUN",
    "*/30 * * * * *",
    "*/13 */2 0-3 * * *",
    "* * 1 * * SUN",
    "* * * * * *",
]

EXPRESSIONS = [*(f"{time} {days}" for time in TIMES for days in DAYS), *SPECIAL, *DENSE]


def ours(expression):
    """Return an expression as it is written here."""
    return expression.replace("L5", "5L").replace("L0", "SUNL")


def walls(expression, begin, end):
    """Yield the oracle's wall-clock times from ``begin`` to just before ``end``."""
    times = croniter(expression, begin - timedelta(seconds=1), datetime, second_at_beginning=True)
    return takewhile(lambda wall: wall < end, times)


@cache
def changes(zone):
    """Return what a zone's clock shows before and after each change in the two years."""
    found, local = [], ZoneInfo(zone)
    begin = BEGIN.replace(tzinfo=UTC) - DAY
    hours = [begin + timedelta(hours=at) for at in range(24 * 733)]
    for before, after in pairwise(hours):
        offset = before.astimezone(local).utcoffset()
        if after.astimezone(local).utcoffset() == offset:
            continue
        minutes = (before + timedelta(minutes=at) for at in range(61))
        change = next(m for m in minutes if m.astimezone(local).utcoffset() != offset)
        shown = change.astimezone(local).replace(tzinfo=None, fold=0)
        found.append((change.replace(tzinfo=None) + offset, shown))
    return found


def moments(wall, zone):
    """Return the moments, one or two or none, at which the zone's clock shows ``wall``."""
    found = []
    for fold in (0, 1):
        moment = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        back = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        if back == wall and moment not in found:
            found.append(moment)
    return sorted(found)


def end_of_gap(wall, zone):
    """Return the first moment after the gap that holds ``wall``."""
    low, high = sorted(
        wall.replace(tzinfo=zone, fold=fold).astimezone(UTC).replace(microsecond=0)
        for fold in (0, 1)
    )
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def expected(found, zone, skipped, doubled):
    """Return the slots that wall-clock times have in a zone."""
    slots = set()
    for wall in found:
        there = moments(wall, zone)
        if there:
            slots.update(there if doubled is Doubled.BOTH else there[:1])
        elif skipped is Skipped.NEXT:
            slots.add(end_of_gap(wall, zone))
    return sorted(slots)


def periods(expression, zone):
    """Return the periods of wall-clock time to compare; none begins or ends at a change."""
    if not ALL and expression in DENSE:
        fields = expression.split()
        minutes = timedelta(minutes=4 if len(fields) == 6 else 200)
        if expression == "@hourly" or fields[0].isdigit():
            minutes = timedelta(hours=50)
        found = [(min(change) - minutes, max(change) + minutes) for change in changes(zone)]
        return [*found, *((day, day + minutes) for day in (BEGIN, datetime(2026, 2, 28, 23)))]
    if expression not in DENSE:
        return [(BEGIN, END)]
    days = int((END - BEGIN) / DAY)
    return [(BEGIN + DAY * at, BEGIN + DAY * (at + 1)) for at in range(days)]


def steady(begin, end, zone):
    """Return what is taken from the wall to get UTC, if that is the same all the time."""
    tried = {
        wall.replace(tzinfo=zone, fold=fold).utcoffset()
        for wall in (begin, begin + (end - begin) / 2, end)
        for fold in (0, 1)
    }
    return tried.pop() if len(tried) == 1 and end - begin <= DAY else None


@pytest.mark.timeout(7200 if ALL else 120)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_slots_are_those_of_croniter_mapped_by_zoneinfo(expression):
    """In ten zones and two years, with the policies that follow from the expression."""
    by_period = defaultdict(list)
    for name in ZONES:
        for period in periods(expression, name):
            by_period[period].append(name)
    compared = 0
    for (begin, end), names in by_period.items():
        found = list(walls(expression, begin, end))
        for name in names:
            zone, trigger = ZoneInfo(name), Cron(ours(expression), name)
            (first,), (last,) = moments(begin, zone), moments(end, zone)
            offset = steady(begin, end, zone)
            if offset is None:
                slots = expected(found, zone, trigger.skipped, trigger.doubled)
            else:
                slots = [(wall - offset).replace(tzinfo=UTC) for wall in found]
            got = list(
                takewhile(
                    lambda slot: slot < last,  # noqa: B023 - used at once
                    trigger.slots(first - timedelta(microseconds=1)),
                )
            )
            assert got == slots, name
            compared += len(got)
    print(f"{compared} slots of {expression}")
    assert compared or "29 2" in expression  # 2025 and 2026 have no such day


def test_there_are_enough_of_them():
    """Two hundred expressions at least, all different, and ten zones."""
    assert len(set(EXPRESSIONS)) >= 200
    assert len(set(ZONES)) == 10
