"""What the schedulers show of housekeeping in their metrics."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.engine import Connection

from leveret import metrics
from leveret.housekeeping import canary
from leveret.housekeeping.actors import CHECK
from leveret.housekeeping.latest import latest

__all__ = ["Exporter"]

_NOW = text("SELECT clock_timestamp()")
#: A check that is older says nothing of today.
_CHECKED = timedelta(hours=2)


class Exporter:
    """Keeps the metrics of the canary and of missing slots; one for a process.

    Call `look` every few seconds. Between two calls, and when the database cannot be asked, the
    canary's age grows by ``clock`` (seconds that pass steadily). The metrics may be read from any
    thread; `look` is for one at a time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._age: float | None = None
        self._seen_at = 0.0
        metrics.CANARY_AGE.set_function(self.age)

    def look(self, connection: Connection) -> canary.Canary:
        """Ask the database, and set the metrics; a few short reads."""
        before = self._clock()
        found = canary.observe(connection)
        with self._lock:
            self._age, self._seen_at = found.age_seconds, before
        metrics.CANARY_SECONDS.set(math.nan if found.seconds is None else found.seconds)
        metrics.SCHEDULE_GAPS.set(_gaps(connection))
        return found

    def age(self) -> float:
        """Return the canary's age now, in seconds; NaN when there is to be none."""
        with self._lock:
            if self._age is None:
                return math.nan
            return self._age + self._clock() - self._seen_at


def _gaps(connection: Connection) -> float:
    now: datetime = connection.execute(_NOW).scalar_one()
    found = latest(connection, CHECK, after=now - _CHECKED)
    if found is None or found.result is None:
        return math.nan
    try:
        return float(json.loads(found.result)["gaps"])
    except (ValueError, TypeError, LookupError):
        return math.nan
