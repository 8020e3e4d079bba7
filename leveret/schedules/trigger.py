"""When a schedule's slots are: by a cron expression, at an interval, or once. Pure.

A slot is a moment in UTC, a whole millisecond at the finest. A trigger's slots are the same
whenever and wherever they are asked for, and no two are at the same moment.

**Daylight saving.** A cron expression names times that clocks on walls show. Where a zone's clock
is put forward, some of these are left out; where it is put back, some are had twice (any change of
a zone's offset counts, whatever it is called, and however far it goes). What then happens is a
matter of policy and never of chance:

================== ===========================================================================
`Skipped.NEXT`     what would have been in the gap is one slot, the first moment after the gap
`Skipped.SKIP`     there is no slot for it
`Doubled.FIRST`    the first of the two moments is the slot
`Doubled.BOTH`     both are
================== ===========================================================================

Where nothing is said, an expression whose hour field leaves no hour out is taken for a steady beat
(``*/15 * * * *`` is each quarter of an hour, on all days): skip, both. Any other names certain
times of the day (``30 2 * * *`` is once a day, on all days): next, first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import ClassVar, Final, Protocol, Self, TypeVar

from leveret.errors import InvalidSchedule
from leveret.schedules import cron
from leveret.schedules.policy import Doubled, Skipped
from leveret.schedules.zone import FIRST_YEAR, Stretch, WallClock, clock_of

__all__ = ["At", "Cron", "Every", "Trigger", "trigger_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_BEGIN: Final = datetime(FIRST_YEAR, 1, 1)  # noqa: DTZ001 - UTC, but naive
_YEARS: Final = f"it is not within the years {FIRST_YEAR} to {cron.LAST_YEAR}"
_NEVER: Final = datetime.max  # noqa: DTZ901 - what a wall shows has no zone
#: Ten years, with the most leap days that they can have.
_LONGEST: Final = timedelta(days=3653)

_P = TypeVar("_P", Skipped, Doubled)


class Trigger(Protocol):
    """Names the slots of a schedule. Immutable, comparable by value, safe in threads.

    `trigger_of` makes the same trigger again of what the properties tell.
    """

    #: cron, interval or date.
    kind: ClassVar[str]

    @property
    def expression(self) -> str:
        """What it is made of, as text."""
        ...

    @property
    def zone(self) -> str:
        """The time zone that it is meant in, an IANA name."""
        ...

    @property
    def anchor(self) -> datetime | None:
        """From where an interval is counted; None for the others."""
        ...

    @property
    def skipped(self) -> Skipped:
        """What becomes of a wall-clock time that daylight saving leaves out."""
        ...

    @property
    def doubled(self) -> Doubled:
        """What becomes of a wall-clock time that daylight saving has twice."""
        ...

    @property
    def shortest(self) -> timedelta | None:
        """The shortest time between two slots, but for daylight saving; None if a day or more."""
        ...

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``after``, which is aware, in their order, in UTC."""
        ...


@dataclass(frozen=True, slots=True, init=False)
class Cron:
    """A slot wherever the clocks of a zone show a time that a cron expression names.

    `leveret.schedules.cron` has the syntax, and this module's text what daylight saving does.
    Slots are whole seconds, of the years 1900 to 9998. Raises `InvalidSchedule`.
    """

    expression: str
    zone: str
    skipped: Skipped
    doubled: Doubled
    _parsed: cron.Expression = field(repr=False, compare=False)
    _clock: WallClock = field(repr=False, compare=False)
    kind: ClassVar[str] = "cron"
    anchor: ClassVar[datetime | None] = None

    def __init__(
        self,
        expression: str,
        tz: str = "UTC",
        skipped: Skipped | None = None,
        doubled: Doubled | None = None,
    ) -> None:
        parsed = cron.parse(expression)
        steady = parsed.every_hour
        if skipped is None:
            skipped = Skipped.SKIP if steady else Skipped.NEXT
        if doubled is None:
            doubled = Doubled.BOTH if steady else Doubled.FIRST
        values = {
            "expression": " ".join(expression.split()),
            "zone": tz,
            "skipped": _policy(Skipped, "skipped", skipped),
            "doubled": _policy(Doubled, "doubled", doubled),
            "_parsed": parsed,
            "_clock": clock_of(tz),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def shortest(self) -> timedelta | None:
        """The shortest time between two slots, but for daylight saving; None if a day or more."""
        return self._parsed.shortest

    def gap(self, stretch: Stretch) -> Iterator[datetime]:
        """Yield the wall-clock times that are left out where ``stretch`` begins, naive."""
        if stretch.first <= stretch.seen:
            return iter(())
        return takewhile(lambda wall: wall < stretch.first, self._parsed.walls(stretch.seen))

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``after``, which is aware, in their order, in UTC."""
        moment = max(after.astimezone(UTC).replace(tzinfo=None), _BEGIN - _SECOND)
        moment = moment.replace(microsecond=0) + _SECOND
        return self._slots(moment)

    def _slots(self, moment: datetime) -> Iterator[datetime]:
        """Yield the slots from ``moment`` on, which is naive, in UTC and a whole second."""
        both = self.doubled is Doubled.BOTH
        walls: Iterator[datetime] | None = None
        wall = _NEVER
        for begin, end, offset, seen in self._clock.stretches(moment):
            first = begin + offset
            if walls is None:
                # Where the stretch has begun before: what its beginning brought is past.
                start = max(first, moment + offset) if begin < moment else min(first, seen)
                walls = self._parsed.walls(start if both else max(start, seen))
                wall = next(walls, _NEVER)
            elif both and first < seen:
                walls = self._parsed.walls(first)
                wall = next(walls, _NEVER)
            if wall < first:
                gap = False
                while wall < first:
                    gap = gap or wall >= seen
                    wall = next(walls, _NEVER)
                if gap and self.skipped is Skipped.NEXT:
                    yield begin.replace(tzinfo=UTC)
                    if wall == first:
                        wall = next(walls, _NEVER)
            last = end + offset
            while wall < last:
                yield (wall - offset).replace(tzinfo=UTC)
                wall = next(walls, _NEVER)
            if wall is _NEVER:
                return


@dataclass(frozen=True, slots=True)
class Every:
    """A slot each so often, counted from ``anchor``: steady, whatever clocks on walls do.

    The interval is at least a second, at most ten years, and whole milliseconds, as is the anchor.
    Raises `InvalidSchedule`.
    """

    interval: timedelta
    anchor: datetime = _EPOCH
    kind: ClassVar[str] = "interval"
    zone: ClassVar[str] = "UTC"
    skipped: ClassVar[Skipped] = Skipped.NEXT
    doubled: ClassVar[Doubled] = Doubled.FIRST

    def __post_init__(self) -> None:
        if not isinstance(self.interval, timedelta):
            raise InvalidSchedule("interval", self.interval, "it is a timedelta")
        if not _SECOND <= self.interval <= _LONGEST:
            raise InvalidSchedule(
                "interval", self.interval, "it is at least one second and at most ten years"
            )
        if self.interval % _MILLISECOND:
            raise InvalidSchedule("interval", self.interval, "it has to be whole milliseconds")
        object.__setattr__(self, "anchor", _moment("anchor", self.anchor))

    @property
    def shortest(self) -> timedelta:
        """The time between two slots."""
        return self.interval

    @property
    def expression(self) -> str:
        """The seconds between two slots."""
        return f"{self.interval.total_seconds():.15g}"

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``after``, which is aware, in their order, in UTC."""
        interval = self.interval
        try:
            slot = self.anchor + ((after - self.anchor) // interval + 1) * interval
            while True:
                yield slot
                slot += interval
        except OverflowError:
            return  # the end of Python's calendar


@dataclass(frozen=True, slots=True)
class At:
    """One slot: ``moment``, which is aware and whole milliseconds. Raises `InvalidSchedule`.

    ``zone`` is only what it is shown in. `At.local` takes what a clock on a wall shows.
    """

    moment: datetime
    zone: str = "UTC"
    kind: ClassVar[str] = "date"
    anchor: ClassVar[datetime | None] = None
    skipped: ClassVar[Skipped] = Skipped.NEXT
    doubled: ClassVar[Doubled] = Doubled.FIRST

    def __post_init__(self) -> None:
        clock_of(self.zone)
        object.__setattr__(self, "moment", _moment("moment", self.moment))

    @classmethod
    def local(cls, moment: datetime, tz: str, skipped: Skipped = Skipped.NEXT) -> Self:
        """Return the slot when the clocks of ``tz`` show ``moment``, which is naive.

        Of a time that they show twice the first is meant, or with ``fold=1`` the second. A time
        that they leave out stands for the first moment after the gap, or is refused if ``skipped``
        is `Skipped.SKIP`.
        """
        if moment.tzinfo is not None:
            raise InvalidSchedule(
                "moment", moment, "a local time has no offset from UTC of its own"
            )
        clock = clock_of(tz)
        plain = moment.replace(fold=0)
        if not FIRST_YEAR <= plain.year <= cron.LAST_YEAR:
            raise InvalidSchedule("moment", moment, _YEARS)
        first_day = max(plain, _BEGIN + timedelta(days=3)) - timedelta(days=2)
        found = None
        for begin, end, offset, _ in clock.stretches(first_day):
            first, last = begin + offset, end + offset
            if first <= plain < last:
                found = plain - offset
                if not moment.fold:
                    break
            elif plain < first and found is None:
                if skipped is Skipped.SKIP:
                    raise InvalidSchedule(
                        "moment", moment, f"clocks in {tz} leave it out; name another time"
                    )
                found = begin
                break
            if begin > plain + timedelta(days=2):
                break
        if found is None:
            raise InvalidSchedule("moment", moment, _YEARS)
        return cls(found.replace(tzinfo=UTC), tz)

    @property
    def shortest(self) -> None:
        """Nothing: there is one slot."""

    @property
    def expression(self) -> str:
        """The moment."""
        return self.moment.isoformat()

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slot if it is later than ``after``, which is aware."""
        if self.moment > after:
            yield self.moment


def trigger_of(  # noqa: PLR0917 - as the columns of the table, in their order
    kind: str,
    expression: str,
    zone: str = "UTC",
    anchor: datetime | None = None,
    skipped: str | None = None,
    doubled: str | None = None,
) -> Trigger:
    """Return the trigger that its properties, as text, describe; so the table keeps them.

    It also reads what people write: the seconds of an interval may be a decimal, and a date
    without an offset from UTC is local time in ``zone``. Raises `InvalidSchedule`.
    """
    match kind:
        case "cron":
            return Cron(
                expression,
                zone,
                None if skipped is None else _policy(Skipped, "skipped", skipped),
                None if doubled is None else _policy(Doubled, "doubled", doubled),
            )
        case "interval":
            return Every(_interval(expression), _EPOCH if anchor is None else anchor)
        case "date":
            try:
                moment = datetime.fromisoformat(expression)
            except ValueError:
                raise InvalidSchedule(
                    "expression", expression, "it is no date; write 2026-03-29T01:30:00+00:00"
                ) from None
            if moment.tzinfo is not None:
                return At(moment, zone)
            return At.local(moment, zone, _policy(Skipped, "skipped", skipped or Skipped.NEXT))
        case _:
            raise InvalidSchedule("trigger", kind, "it is cron, interval or date")


def _interval(expression: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", expression):
        raise InvalidSchedule(
            "interval", expression, "it is a number of seconds, such as 90 or 1.5"
        )
    milliseconds = Decimal(expression) * 1000
    if milliseconds % 1:
        raise InvalidSchedule("interval", expression, "it has to be whole milliseconds")
    return timedelta(milliseconds=int(milliseconds))


def _policy(kind: type[_P], name: str, value: str) -> _P:
    try:
        return kind(value)
    except ValueError:
        allowed = " or ".join(kind)
        raise InvalidSchedule(name, value, f"it is {allowed}") from None


def _moment(name: str, moment: datetime) -> datetime:
    """Return a moment in UTC, if it can be one of a schedule's."""
    if moment.tzinfo is None:
        raise InvalidSchedule(name, moment, "it needs a time zone, or an offset from UTC")
    moment = moment.astimezone(UTC)
    if moment.microsecond % 1000:
        raise InvalidSchedule(name, moment, "it has to be whole milliseconds")
    if not FIRST_YEAR <= moment.year <= cron.LAST_YEAR:
        raise InvalidSchedule(name, moment, _YEARS)
    return moment
