"""What the clocks on the walls of a time zone show, and when they are put forward or back. Pure.

The time of a zone is cut into stretches in which its clock runs steadily. One begins wherever the
offset from UTC changes, for whatever reason (daylight saving, or a government that moves its
country over the date line), and with each year, so that a year's stretches are found once and
kept. The clock is put forward where a stretch begins later than what the wall has shown
(`Stretch.seen`): what lies between is left out. It is put back where one begins earlier: what lies
between is had twice. Gaps and doubled times may be of any length.

The standard library tells the offset of a moment, but not when it changes. So it is asked for each
noon and midnight in UTC, and the second of a change is found by halving. No zone of the IANA data
has changed its offset twice within twelve hours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from leveret.errors import InvalidSchedule
from leveret.schedules.cron import LAST_YEAR

__all__ = ["Stretch", "WallClock", "clock_of"]

#: Before this year no time is named.
FIRST_YEAR: Final = 1900

_SECOND: Final = timedelta(seconds=1)
_PROBE: Final = timedelta(hours=12)
#: Offsets are less than a day, either way: what a wall showed longer ago than this was earlier.
_LOOK_BACK: Final = timedelta(days=2)
#: Files in the system's folder of zones that are none, or that count leap seconds.
_NO_ZONES: Final = ("posix/", "right/", "localtime", "posixrules", "Factory")


class Stretch(NamedTuple):
    """A time in which a zone's clock runs steadily. All times are naive."""

    #: In UTC: from this moment …
    begin: datetime
    #: … to just before that one.
    end: datetime
    #: What is added to UTC.
    offset: timedelta
    #: What the wall had not shown yet when it began: later than ``first`` if it was put back,
    #: earlier if it was put forward.
    seen: datetime

    @property
    def first(self) -> datetime:
        """What the wall shows at the beginning."""
        return self.begin + self.offset

    @property
    def last(self) -> datetime:
        """What the wall does not show any more at the end."""
        return self.end + self.offset


class WallClock:
    """The clock of one time zone. Safe in threads: what it keeps is the same for each."""

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._years: dict[int, tuple[Stretch, ...]] = {}

    def stretches(self, moment: datetime) -> Iterator[Stretch]:
        """Yield the stretches from the one on that holds ``moment``, which is naive and in UTC."""
        for year in range(max(moment.year, FIRST_YEAR), LAST_YEAR + 1):
            for stretch in self._stretches_of(year):
                if stretch.end > moment:
                    yield stretch

    def offset(self, moment: datetime) -> timedelta:
        """Return what is added to UTC at ``moment``, which is naive and in UTC."""
        offset = self.zone.fromutc(moment.replace(tzinfo=self.zone)).utcoffset()
        return timedelta(0) if offset is None else offset

    def again(self, moment: datetime) -> bool:
        """Return whether the wall shows once more what it shows at ``moment``, naive and UTC."""
        stretches = self.stretches(moment)
        local = moment + next(stretches).offset
        for later in stretches:
            if later.begin > moment + _LOOK_BACK:
                break
            if later.first <= local < later.last:
                return True
        return False

    def _stretches_of(self, year: int) -> tuple[Stretch, ...]:
        found = self._years.get(year)
        if found is None:
            found = self._years[year] = tuple(self._find(year))
        return found

    def _find(self, year: int) -> Iterator[Stretch]:
        begin, end = datetime(year, 1, 1), datetime(year + 1, 1, 1)  # noqa: DTZ001 - UTC, as said
        before = begin - _LOOK_BACK
        offset = self.offset(before)
        seen = before + offset
        marks = sorted({begin, *self._changes(before, end)})
        for mark, following in zip(marks, [*marks[1:], end], strict=True):
            seen = max(seen, mark + offset)
            offset = self.offset(mark)
            if begin <= mark < end:  # one at the end begins the next year
                yield Stretch(mark, following, offset, seen)

    def _changes(self, begin: datetime, end: datetime) -> Iterator[datetime]:
        if self.zone.utcoffset(None) is not None:  # the same at all times
            return
        low, before = begin, self.offset(begin)
        while low < end:
            high = low + _PROBE
            after = self.offset(high)
            if after != before:
                yield self._change(low, high)
            low, before = high, after

    def _change(self, low: datetime, high: datetime) -> datetime:
        before = self.offset(low)
        while high - low > _SECOND:
            middle = low + (high - low) // (2 * _SECOND) * _SECOND
            if self.offset(middle) == before:
                low = middle
            else:
                high = middle
        return high


@cache
def clock_of(name: str) -> WallClock:
    """Return the clock of the zone that the IANA calls ``name``.

    Raises `InvalidSchedule` when there is no such zone; the message names what is near to it.
    """
    if not name.startswith(_NO_ZONES):
        try:
            return WallClock(ZoneInfo(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass  # answered below, whatever kept it from being read
    raise InvalidSchedule("tz", name, _no_zone(name))


def _no_zone(name: str) -> str:
    names = {known.lower(): known for known in available_timezones()}
    if not names:
        return "this machine knows no time zones at all; install tzdata"
    wanted = name.lower()
    near = difflib.get_close_matches(wanted, names, n=3)
    near += [known for known in sorted(names) if known.endswith(f"/{wanted}")]
    if near:
        meant = " or ".join(dict.fromkeys(names[known] for known in near))
        return f"there is no such time zone; did you mean {meant}?"
    return "there is no such time zone; it is the IANA's name of one, as Europe/Lisbon or UTC"
