"""Cron expressions: which wall-clock times they name. Pure, and knows nothing of time zones.

Five fields, or six with the seconds first::

    ┌ second (0-59), only with six fields; with five it is 0
    │ ┌ minute (0-59)
    │ │ ┌ hour (0-23)
    │ │ │ ┌ day of month (1-31)
    │ │ │ │ ┌ month (1-12, JAN-DEC)
    │ │ │ │ │ ┌ day of week (0-7, SUN-SAT; 0 and 7 are Sunday)
    * * * * * *

A field is a list of items with commas between them:

======== =================================================================================
``*``    every value
``?``    every value, in the two fields of days only
``a``    that value; months and days of the week by number or by name
``a-b``  from a to b; where a is greater it goes on at the beginning (``22-2``, ``FRI-MON``)
``/s``   after ``*`` or ``a-b``: each s-th of them; after ``a``: from a to the field's end
``L``    day of month: the last; ``L-2`` the third to last; ``LW`` the last Monday to Friday
``15W``  day of month: of Monday to Friday the nearest to the 15th, in the same month
``5L``   day of week: the last Friday of the month, as ``FRIL``
``1#2``  day of week: the second Monday of the month, as ``MON#2``
======== =================================================================================

Where both fields of days say something, a day matches that matches either of them, as in Vixie's
cron; one that is ``*`` or ``?`` has nothing to say. A day that a month lacks is not in it:
``31``, ``31W`` and ``L-30`` are not in April.
``@yearly`` (``@annually``), ``@monthly``, ``@weekly``, ``@daily`` (``@midnight``) and ``@hourly``
stand for what they say.

An expression is parsed into the sorted values of each field. The next time that matches is then
found field by field, from the month down, and never by trying second after second.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from leveret.errors import InvalidSchedule

__all__ = ["LAST_YEAR", "MACROS", "Days", "Expression", "parse"]

#: No time after this year is named: Python's calendar ends soon after it.
LAST_YEAR: Final = 9998

#: Longer expressions are refused. One that lists every second, minute, hour … has 700 characters.
_LONGEST: Final = 1000

#: Names of expressions, and the expressions.
MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MONTHS: Final = (
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"
)  # fmt: skip
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


class _Field(NamedTuple):
    """What a field may hold."""

    name: str
    low: int
    high: int
    names: dict[str, int]

    @property
    def width(self) -> int:
        """How many values there are."""
        return self.high - self.low + 1

    @property
    def allowed(self) -> str:
        """The values, for an error."""
        if self is _WEEKDAY:
            return "0-7 (0 and 7 are Sunday) or SUN-SAT"
        names = list(self.names)
        return f"{self.low}-{self.high}" + (f" or {names[0]}-{names[-1]}" if names else "")


_SECOND: Final = _Field("second", 0, 59, {})
_MINUTE: Final = _Field("minute", 0, 59, {})
_HOUR: Final = _Field("hour", 0, 23, {})
_DAY: Final = _Field("day of month", 1, 31, {})
_MONTH: Final = _Field("month", 1, 12, {name: at for at, name in enumerate(_MONTHS, 1)})
_WEEKDAY: Final = _Field("day of week", 0, 6, {name: at for at, name in enumerate(_WEEKDAYS)})


@dataclass(frozen=True, slots=True)
class Days:
    """What both fields of days say. Immutable, but for what it remembers; safe in threads."""

    #: Days of the month by number.
    numbers: frozenset[int]
    #: … counted back from the last day, which is 0.
    back: frozenset[int]
    #: … whose nearest Monday to Friday is meant; 0 stands for the last of those in the month.
    nearest: frozenset[int]
    #: Days of the week; Sunday is 0.
    weekdays: frozenset[int]
    #: … with which of them in the month it is; -1 is the last.
    nth: frozenset[tuple[int, int]]
    #: A day that matches either field of days matches; else one that matches both.
    either: bool
    #: The days of a month, by its length and the weekday of its first.
    _known: dict[tuple[int, int], tuple[int, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def of(self, length: int, first: int) -> tuple[int, ...]:
        """Return the days that match in a month of ``length`` days that begins on ``first``.

        ``first`` is a day of the week; Sunday is 0.
        """
        known = self._known.get((length, first))
        if known is None:
            by_day, by_weekday = self._by_number(length, first), self._by_weekday(length, first)
            found = by_day | by_weekday if self.either else by_day & by_weekday
            known = self._known[length, first] = tuple(sorted(found))
        return known

    def _by_number(self, length: int, first: int) -> set[int]:
        found = {day for day in self.numbers if day <= length}
        found |= {length - back for back in self.back if back < length}
        found |= {_nearest(day or length, length, first) for day in self.nearest if day <= length}
        return found

    def _by_weekday(self, length: int, first: int) -> set[int]:
        found = {day for day in range(1, length + 1) if (day - 1 + first) % 7 in self.weekdays}
        for weekday, nth in self.nth:
            days = range((weekday - first) % 7 + 1, length + 1, 7)
            if nth <= len(days):
                found.add(days[nth - 1] if nth > 0 else days[-1])
        return found


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed cron expression, by its fields. Immutable; safe in threads."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    days: Days

    @property
    def every_hour(self) -> bool:
        """Whether no hour is left out."""
        return len(self.hours) == _HOUR.width

    @property
    def shortest(self) -> timedelta | None:
        """The shortest time between two that match on walls; None where that is a day or more."""
        gaps: list[int] = []
        begin = end = 0
        for values, unit in ((self.seconds, 1), (self.minutes, 60), (self.hours, 3600)):
            gaps += [(b - a) * unit - (end - begin) for a, b in pairwise(values)]
            begin, end = begin + values[0] * unit, end + values[-1] * unit
        gaps.append(86_400 - (end - begin))
        return None if end == begin else timedelta(seconds=min(gaps))

    def walls(self, start: datetime) -> Iterator[datetime]:
        """Yield the wall-clock times that match, from ``start`` on, in their order.

        ``start`` and what is yielded are naive, and whole seconds.
        """
        hours, minutes, seconds = self.hours, self.minutes, self.seconds
        begun = (start.year, start.month, start.day)
        for today in self._dates(start):
            if today == begun:
                yield from self._rest_of_day(start)
                continue
            year, month, day = today
            for hour in hours:
                for minute in minutes:
                    for second in seconds:
                        yield datetime(year, month, day, hour, minute, second)  # noqa: DTZ001

    def _dates(self, start: datetime) -> Iterator[tuple[int, int, int]]:
        months, day = self.months[bisect_left(self.months, start.month) :], start.day
        for year in range(start.year, LAST_YEAR + 1):
            for month in months:
                first = date(year, month, 1).isoweekday() % 7
                days = self.days.of(_length(year, month), first)
                if day > 1 and (month, year) == (start.month, start.year):
                    days = days[bisect_left(days, day) :]
                for found in days:
                    yield year, month, found
            months = self.months

    def _rest_of_day(self, start: datetime) -> Iterator[datetime]:
        for hour in self.hours[bisect_left(self.hours, start.hour) :]:
            minutes = self.minutes
            if hour == start.hour:
                minutes = minutes[bisect_left(minutes, start.minute) :]
            for minute in minutes:
                seconds = self.seconds
                if (hour, minute) == (start.hour, start.minute):
                    seconds = seconds[bisect_left(seconds, start.second) :]
                for second in seconds:
                    yield start.replace(hour=hour, minute=minute, second=second)


def _length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in {4, 6, 9, 11} else 31


def _nearest(day: int, length: int, first: int) -> int:
    """Return the day from Monday to Friday that is nearest to ``day``, in the same month.

    For the last day that is the last such day in the month, too: it can only go back.
    """
    weekday = (day - 1 + first) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Return what a cron expression says.

    Raises `InvalidSchedule`, which tells the column, when it says nothing, or nothing that can
    ever be.
    """
    if len(text) > _LONGEST:
        raise _wrong(text, f"it has {len(text)} characters; at most {_LONGEST} are read")
    words = [(match.group(), match.start() + 1) for match in re.finditer(r"\S+", text)]
    if words and words[0][0].startswith("@"):
        return parse(_macro(text, words))
    if len(words) not in {5, 6}:
        raise _wrong(
            text,
            f"it has {len(words)} fields; there are five (minute, hour, day of month, month, day "
            "of week), or six with the seconds in front",
            position=words[6][1] if len(words) > 6 else None,
        )
    if len(words) == 5:
        words.insert(0, ("0", 1))
    second, minute, hour, day, month, weekday = (
        _Reader(text, kind).read(word, column)
        for kind, (word, column) in zip(
            (_SECOND, _MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY), words, strict=True
        )
    )
    days = _shared_days(
        frozenset(day.values),
        frozenset(day.back),
        frozenset(day.nearest),
        frozenset(weekday.values),
        frozenset(weekday.nth),
        not day.free and not weekday.free,
    )
    expression = Expression(
        seconds=_shared(tuple(sorted(second.values))),
        minutes=_shared(tuple(sorted(minute.values))),
        hours=_shared(tuple(sorted(hour.values))),
        months=_shared(tuple(sorted(month.values))),
        days=days,
    )
    if not any(
        days.of(length, first)
        for month_ in expression.months
        for length in {_length(2023, month_), _length(2024, month_)}
        for first in range(7)
    ):
        raise _wrong(
            text,
            "there is no such day in any year; name a day that the months have",
            position=words[3][1],
        )
    return expression


# Thousands of schedules differ in little: what they have in common is kept once.
_shared_days = lru_cache(maxsize=1024)(Days)


@lru_cache(maxsize=1024)
def _shared(values: tuple[int, ...]) -> tuple[int, ...]:
    return values


def _macro(text: str, words: list[tuple[str, int]]) -> str:
    word, column = words[0]
    if len(words) > 1:
        raise _wrong(text, f"nothing may follow {word}", position=words[1][1])
    try:
        return MACROS[word.lower()]
    except KeyError:
        known = ", ".join(MACROS)
        raise _wrong(text, f"{word} is not known; there are {known}", position=column) from None


def _wrong(text: str, reason: str, *, position: int | None = None) -> InvalidSchedule:
    return InvalidSchedule("expression", text, reason, position=position)


class _Reader:
    """Reads one field of an expression."""

    def __init__(self, text: str, kind: _Field) -> None:
        self._text = text
        self._kind = kind
        self.values: set[int] = set()
        self.back: set[int] = set()
        self.nearest: set[int] = set()
        self.nth: set[tuple[int, int]] = set()
        #: Whether it has nothing to say.
        self.free = False

    def read(self, word: str, column: int) -> _Reader:
        """Take in the field that stands at ``column``."""
        for item in word.split(","):
            if not item:
                raise self._wrong(column, "an item is missing beside a comma")
            if not self._special(item.upper(), column):
                self._plain(item.upper(), column)
            column += len(item) + 1
        return self

    def _special(self, item: str, column: int) -> bool:
        """Take in what only a field of days has; return whether it is such."""
        if self._kind is _DAY:
            return self._special_day(item, column)
        if self._kind is not _WEEKDAY:
            return False
        if item == "L":
            raise self._wrong(column, "L needs a day of the week before it, as in 5L or FRIL")
        if "#" in item:
            day, _, nth = item.partition("#")
            if not re.fullmatch("[1-5]", nth):
                raise self._wrong(
                    column + len(day) + 1, f"{nth or 'nothing'} after # is not among 1-5"
                )
            self.nth.add((self._value(day, column) % 7, int(nth)))
            return True
        if re.fullmatch("([0-9]+|[A-Z]{3})L", item):
            self.nth.add((self._value(item[:-1], column) % 7, -1))
            return True
        return False

    def _special_day(self, item: str, column: int) -> bool:
        if item == "LW":
            self.nearest.add(0)
        elif item == "L":
            self.back.add(0)
        elif item.startswith("L-"):
            if not re.fullmatch("[0-9]{1,2}", item[2:]) or int(item[2:]) > 30:
                raise self._wrong(
                    column + 2, f"{item[2:] or 'nothing'} after L- is not among 0-30 days"
                )
            self.back.add(int(item[2:]))
        elif re.fullmatch("[0-9]+W", item):
            self.nearest.add(self._value(item[:-1], column))
        else:
            return False
        return True

    def _plain(self, item: str, column: int) -> None:
        kind = self._kind
        base, slash, word = item.partition("/")
        step = self._step(word, column + len(base) + 1) if slash else 1
        if base == "?" and (slash or (kind is not _DAY and kind is not _WEEKDAY)):
            raise self._wrong(column, "? stands alone in a field of days; write *")
        if base in {"*", "?"}:
            low, high = kind.low, kind.high
            self.free = self.free or step == 1
        elif "-" in base:
            begin, _, end = base.partition("-")
            low, high = self._value(begin, column), self._value(end, column + len(begin) + 1)
        else:
            low = self._value(base, column)
            high = kind.high if slash else low
        if kind is _WEEKDAY and low == 7:
            low, high = 0, high % 7
        if low > high:
            high += kind.width
        for value in range(low, high + 1, step):
            self.values.add((value - kind.low) % kind.width + kind.low)

    def _step(self, word: str, column: int) -> int:
        most = self._kind.width - 1
        if not re.fullmatch("[0-9]{1,4}", word) or not 1 <= int(word) <= most:
            raise self._wrong(
                column, f"{word or 'nothing'} after / is not a step; it is one of 1-{most}"
            )
        return int(word)

    def _value(self, word: str, column: int) -> int:
        kind = self._kind
        if word in kind.names:
            return kind.names[word]
        if re.fullmatch("[0-9]{1,4}", word):
            value = int(word)
            if kind.low <= value <= kind.high or (kind is _WEEKDAY and value == 7):
                return value
        wrong = f"{word} is not among" if word else "a value is missing; it is among"
        raise self._wrong(column, f"{wrong} {kind.allowed}")

    def _wrong(self, column: int, reason: str) -> InvalidSchedule:
        return _wrong(self._text, f"{self._kind.name}: {reason}", position=column)
