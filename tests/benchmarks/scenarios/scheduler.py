"""What one scheduler makes of 10,000 schedules, alone on the machine.

All are in the table before it starts, as cron expressions in ten time zones. One of them is
overdue: the time from starting the process to that job's row in the outbox is what it takes to
start, all schedules read. Then a minute begins at which 1,000 of the schedules are due in the same
second. A slot's lateness is what the database says: from when it was due to when its row was
written, with the job's, in the statement that both are committed by. Memory is read after that.
"""

import time
from datetime import datetime

import psycopg

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.figures import percentile
from tests.benchmarks.scenarios import Repeated, Sample
from tests.benchmarks.workers import Workers

_PATIENCE_SECONDS = 100.0
_LOOK_SECONDS = 0.05
_ZONES = (
    "UTC", "Europe/Lisbon", "Europe/Berlin", "America/New_York", "America/Los_Angeles",
    "America/Sao_Paulo", "Asia/Tokyo", "Asia/Kolkata", "Africa/Lagos", "Australia/Sydney",
)  # fmt: skip
# The rest fire once a year: they are there to be kept.
_MAKE = """
INSERT INTO schedules (
    name, origin, created_by, actor, body, trigger, expression, timezone, missed, since, next_due_at
)
SELECT 's' || n, 'api', 'bench', 'bench.noop', convert_to('{"job":' || n || '}', 'UTF8'), 'cron',
    CASE WHEN n <= %(busy)s THEN '* * * * *'
         ELSE (n %% 60) || ' ' || (n %% 24) || ' ' || (1 + n %% 28) || ' 1 *' END,
    (%(zones)s::text[])[1 + n %% 10], 'once',
    CASE WHEN n = 1 THEN now() - interval '1 hour' ELSE now() END,
    CASE WHEN n = 1 THEN date_trunc('minute', now())
         WHEN n <= %(busy)s THEN date_trunc('minute', now()) + interval '1 minute'
         ELSE date_trunc('year', now()) + interval '1 year' + n * interval '1 minute' END
FROM generate_series(1, %(all)s) AS n"""
_LATE = """
SELECT extract(epoch FROM fired_at - due_at)::float8 FROM schedule_slots
WHERE slot = %s AND outcome = 'fired'"""


class Schedules(Repeated):
    """Start, memory, and lateness of a minute with many fires."""

    name = "scheduler"
    needs = Ability.SCHEDULES

    def __init__(self, *, schedules: int = 10_000, busy: int = 1_000) -> None:
        self._schedules = schedules
        self._busy = busy

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Start a scheduler on a full table, and wait for the next minute."""
        arena.prepare(contestant)
        with psycopg.connect(arena.new_database(contestant), autocommit=True) as database:
            _away_from_the_minute(database)
            values = {"all": self._schedules, "busy": self._busy, "zones": list(_ZONES)}
            database.execute(_MAKE, values)
            database.execute("ANALYZE schedules")
            minute = _minute(database)
            began = time.time()
            with arena.beside(contestant) as scheduler:
                first = self._await(database, scheduler, minute, 0)
                started = first.timestamp() - began
                self._await(database, scheduler, minute, self._busy)
                late = [row[0] for row in database.execute(_LATE, [minute])]
                memory = scheduler.memory()
        if len(late) != self._busy or min(late) < 0:
            raise BenchmarkError(f"{len(late)} of {self._busy} slots fired, the first {min(late)}")
        return {
            "start_seconds": started,
            "late_p50_ms": percentile(late, 0.5) * 1000,
            "late_p99_ms": percentile(late, 0.99) * 1000,
            "late_worst_ms": max(late) * 1000,
            "pss_mb": memory.pss_mb,
            "rss_mb": memory.rss_mb,
        }

    def _await(
        self,
        database: psycopg.Connection[tuple[object, ...]],
        scheduler: Workers,
        minute: datetime,
        count: int,
    ) -> datetime:
        """Wait until so many slots of a minute are fired, or for none until one of another is."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            scheduler.check()
            row = database.execute(
                "SELECT count(*) FILTER (WHERE slot = %s), min(fired_at) FROM schedule_slots"
                " WHERE outcome = 'fired'",
                [minute],
            ).fetchone()
            if row is not None and isinstance(row[1], datetime) and row[0] == count:
                return row[1]
            time.sleep(_LOOK_SECONDS)
        raise BenchmarkError(f"{count} slots of {minute} were not fired")


def _minute(database: psycopg.Connection[tuple[object, ...]]) -> datetime:
    """Return when the next minute begins."""
    row = database.execute("SELECT date_trunc('minute', now()) + interval '1 minute'").fetchone()
    if row is None or not isinstance(row[0], datetime):
        raise BenchmarkError("the database does not know the time")
    return row[0]


def _away_from_the_minute(database: psycopg.Connection[tuple[object, ...]]) -> None:
    """Wait until there is time to start before the next minute begins."""
    row = database.execute("SELECT extract(second FROM clock_timestamp())::float8").fetchone()
    second = row[0] if row is not None and isinstance(row[0], float) else 0.0
    if second > 40:
        time.sleep(61 - second)
