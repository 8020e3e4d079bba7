"""When a schedule's slots are: by a cron expression, at an interval, or once. Pure.

A slot is a moment in UTC. A wall-clock time that daylight saving leaves out, or has twice, is a
matter of policy (`Skipped`, `Doubled`) and never of chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Protocol

__all__ = ["At", "Every", "Trigger"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Trigger(Protocol):
    """Names the slots of a schedule."""

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

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``after``, in their order, in UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """A slot each so often, counted from ``anchor``: steady, whatever clocks on walls do."""

    interval: timedelta
    anchor: datetime = _EPOCH
    kind: ClassVar[str] = "interval"
    zone: ClassVar[str] = "UTC"

    @property
    def expression(self) -> str:
        """The seconds between two slots."""
        return f"{self.interval.total_seconds():.15g}"

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``after``, in their order, in UTC."""
        slot = self.anchor + ((after - self.anchor) // self.interval + 1) * self.interval
        while True:
            yield slot.astimezone(UTC)
            slot += self.interval


@dataclass(frozen=True, slots=True)
class At:
    """One slot."""

    moment: datetime
    kind: ClassVar[str] = "date"
    zone: ClassVar[str] = "UTC"

    @property
    def expression(self) -> str:
        """The moment."""
        return self.moment.isoformat()

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the slot if it is later than ``after``."""
        if self.moment > after:
            yield self.moment.astimezone(UTC)
