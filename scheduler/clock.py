"""The database's clock, as a process knows it.

What is due is judged by the database's clock, so that all schedulers agree, and one whose own wall
clock is wrong is no worse than the others. A process cannot read that clock without asking. Each
answer that has the time in it is a *sample*: the database said ``at``, at some moment between the
question and the answer, by the clock that counts the process's seconds. So the difference of the
two clocks is at least ``at - answered``, and at most ``at - asked``.

The estimate is the largest of the latest lower bounds: not ahead of the database, and behind it by
no more than the fastest answer took. It is for waking up; whether a slot is due is asked of the
database itself. A sample that contradicts the estimate (its upper bound is below) means that a
clock has jumped, the process's or the database's, and what was known before is forgotten.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from leveret.store.lease import elapsed_seconds

__all__ = ["DatabaseClock", "DatabaseTime"]

#: So many answers are remembered: clocks do not run alike for ever.
_SAMPLES = 16
#: Clocks do not run quite alike, and times are written with so many digits.
_TOLERANCE_SECONDS = 0.001


class DatabaseClock:
    """An estimate of the database's time. Thread-safe."""

    def __init__(self, elapsed: Callable[[], float] = elapsed_seconds) -> None:
        self._elapsed = elapsed
        self._bounds: deque[float] = deque(maxlen=_SAMPLES)
        self._offset: float | None = None
        self._lock = threading.Lock()
        self.zone = DatabaseTime(self)

    def elapsed(self) -> float:
        """Return the process's own seconds: what `observe` wants to know of a question."""
        return self._elapsed()

    def observe(self, at: datetime, asked: float) -> None:
        """Learn from an answer that has just come, to what was asked then."""
        seconds = at.timestamp()
        answered = self._elapsed()
        with self._lock:
            lowest, highest = sorted((seconds - answered, seconds - asked))
            if self._offset is not None and self._offset > highest + _TOLERANCE_SECONDS:
                self._bounds.clear()
            self._bounds.append(lowest)
            self._offset = max(self._bounds)

    def now(self) -> datetime:
        """Return the database's time, or a little less; raises `LookupError` before any answer."""
        offset = self._offset
        if offset is None:
            raise LookupError("the database has not been asked for its time yet")
        return datetime.fromtimestamp(self._elapsed() + offset, UTC)


class DatabaseTime(tzinfo):
    """UTC by the database's clock: what ``datetime.now`` of this zone answers.

    APScheduler asks ``datetime.now(self.timezone)`` for the present. That takes the wall clock of
    the process and hands it to the zone's `fromutc`, to be converted; here it is thrown away, and
    the answer is the database's time. So APScheduler, as it is, waits and wakes by that clock.

    The zone is for that alone. Nothing can be converted *into* it, for that is `fromutc`, too: a
    moment gets into it with `at`.
    """

    def __init__(self, clock: DatabaseClock) -> None:
        self._clock = clock

    def at(self, moment: datetime) -> datetime:
        """Return a moment of this zone."""
        return moment.astimezone(UTC).replace(tzinfo=self)

    def fromutc(self, _moment: datetime) -> datetime:
        """Return the present."""
        return self._clock.now().replace(tzinfo=self)

    def utcoffset(self, _moment: datetime | None) -> timedelta:
        """Return none."""
        return timedelta(0)

    def dst(self, _moment: datetime | None) -> timedelta:
        """Return none."""
        return timedelta(0)

    def tzname(self, _moment: datetime | None) -> str:
        """Return the name of UTC, which it is."""
        return "UTC"
