"""What the schedulers show of housekeeping, and of the database, in their metrics."""

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

__all__ = ["FRESH_SECONDS", "OVERDUE_SECONDS", "Exporter"]

_NOW = text("SELECT clock_timestamp()")
#: A check that is older says nothing of today.
_CHECKED = timedelta(hours=2)

#: What was last seen of the database is true for so long.
FRESH_SECONDS = 20.0
#: A job is overdue so long after it was due: the wheel may take as long, and the recorder.
OVERDUE_SECONDS = 60
#: More are not counted: they would say nothing that these do not.
_MOST_OVERDUE = 100_000
#: The size of a database is the sizes of its files, so it is asked for now and then only.
_SIZE_SECONDS = 60.0

# Each look is to be cheap, and to end.
_BOUND = text("SET LOCAL statement_timeout = '2s'")
_SERVER = text(
    "SELECT (SELECT sum(numbackends) FROM pg_stat_database) AS connections,"
    " current_setting('max_connections')::int"
    "  - current_setting('superuser_reserved_connections')::int AS connection_limit,"
    " (SELECT COALESCE(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8"
    "  FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())"
    " AS oldest_transaction"
)
_SIZE = text("SELECT pg_database_size(current_database())")
# now(), which is one moment for the whole statement, so that the index can be asked for it.
_OVERDUE = text(
    "SELECT count(*) AS jobs,"
    " COALESCE(extract(epoch FROM now() - min(due_at)), 0)::float8 AS oldest FROM ("
    "  SELECT due_at FROM jobs WHERE state IN ('scheduled', 'retrying')"
    "  AND due_at < now() - make_interval(secs => :seconds) ORDER BY due_at LIMIT :most) AS late"
)


class Exporter:
    """Keeps the metrics of the canary, of missing slots and of the database; one for a process.

    Call `look`, `look_at_server` and `look_at_jobs` every few seconds, each in a transaction of its
    own, and `lost` when the database cannot be asked. Between two calls, and without a database,
    the canary's age grows by ``clock`` (seconds that pass steadily); what was seen of the database
    is unknown again (NaN) after `FRESH_SECONDS`. The metrics may be read from any thread; looking
    is for one at a time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._age: float | None = None
        self._seen_at = 0.0
        self._size = math.nan
        self._size_at = -math.inf
        #: By metric: what was seen, and when.
        self._seen: dict[object, tuple[float, float]] = {}
        metrics.CANARY_AGE.set_function(self.age)
        for gauge in (
            metrics.DATABASE_SIZE,
            metrics.DATABASE_CONNECTIONS,
            metrics.DATABASE_CONNECTIONS_LIMIT,
            metrics.DATABASE_OLDEST_TRANSACTION,
            metrics.JOBS_OVERDUE,
            metrics.JOBS_OVERDUE_OLDEST,
        ):
            gauge.set_function(lambda gauge=gauge: self._latest(gauge))  # type: ignore[misc]
        metrics.DATABASE_UP.set_function(self._is_up)

    def look(self, connection: Connection) -> canary.Canary:
        """Ask how the canary fares, and set the metrics; a few short reads."""
        before = self._clock()
        found = canary.observe(connection)
        with self._lock:
            self._age, self._seen_at = found.age_seconds, before
        metrics.CANARY_SECONDS.set(math.nan if found.seconds is None else found.seconds)
        metrics.SCHEDULE_GAPS.set(_gaps(connection))
        return found

    def look_at_server(self, connection: Connection) -> None:
        """Ask how the database's server is; short reads of its own statistics."""
        before = self._clock()
        connection.execute(_BOUND)
        server = connection.execute(_SERVER).one()
        if before - self._size_at >= _SIZE_SECONDS:
            self._size, self._size_at = float(connection.execute(_SIZE).scalar_one()), before
        self._note(metrics.DATABASE_SIZE, self._size, before)
        self._note(metrics.DATABASE_CONNECTIONS, server.connections, before)
        self._note(metrics.DATABASE_CONNECTIONS_LIMIT, server.connection_limit, before)
        self._note(metrics.DATABASE_OLDEST_TRANSACTION, server.oldest_transaction, before)

    def look_at_jobs(self, connection: Connection) -> None:
        """Ask what is overdue; one read of an index, of 100,000 entries at most."""
        before = self._clock()
        connection.execute(_BOUND)
        late = connection.execute(
            _OVERDUE, {"seconds": OVERDUE_SECONDS, "most": _MOST_OVERDUE}
        ).one()
        self._note(metrics.JOBS_OVERDUE, late.jobs, before)
        self._note(metrics.JOBS_OVERDUE_OLDEST, late.oldest, before)

    def lost(self) -> None:
        """Take note that the database cannot be asked."""
        with self._lock:
            self._seen.clear()

    def age(self) -> float:
        """Return the canary's age now, in seconds; NaN when there is to be none."""
        with self._lock:
            if self._age is None:
                return math.nan
            return self._age + self._clock() - self._seen_at

    def _note(self, metric: object, value: float, at: float) -> None:
        with self._lock:
            self._seen[metric] = (float(value), at)

    def _latest(self, metric: object) -> float:
        with self._lock:
            value, at = self._seen.get(metric, (math.nan, 0.0))
        return value if self._clock() - at < FRESH_SECONDS else math.nan

    def _is_up(self) -> float:
        return 0.0 if math.isnan(self._latest(metrics.DATABASE_CONNECTIONS)) else 1.0


def _gaps(connection: Connection) -> float:
    now: datetime = connection.execute(_NOW).scalar_one()
    found = latest(connection, CHECK, after=now - _CHECKED)
    if found is None or found.result is None:
        return math.nan
    try:
        return float(json.loads(found.result)["gaps"])
    except (ValueError, TypeError, LookupError):
        return math.nan
