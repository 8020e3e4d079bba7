"""How many jobs a second run when PostgreSQL knows the state of each one.

As in `drain`, the queue is filled while no worker runs. The clock runs from the first job to the
moment when every row says "succeeded". Dramatiq's rows are written by its workers, one transaction
for each transition; Leveret's by a recorder, which has to keep up. Both have an index to list jobs
by state; the rows of the queued jobs are there before the clock starts, on both sides.

Fair because both use one server with default settings, commits wait for the disk, and the bodies
are the same. Leveret's ledger holds more for each job: what was published, and its attempts.
"""

import time

import psycopg

from tests.benchmarks.arena import Arena, expect_exactly
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.scenarios import Repeated, Sample

_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 120.0


class Tracked(Repeated):
    """Speed of running jobs that do nothing, each with a row in PostgreSQL."""

    name = "tracked"
    needs = Ability.TRACKED

    def __init__(self, *, jobs: int = 20_000) -> None:
        self._jobs = range(jobs)

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Fill, start the workers, and time the first job to the last row."""
        jobs = self._jobs
        arena.prepare(contestant)
        url = arena.new_database(contestant)
        what = f"{contestant.name} {self.name}"
        with arena.board(len(jobs)) as board, arena.beside(contestant):
            arena.fill(contestant, "noop", jobs)
            with psycopg.connect(url, autocommit=True) as ledger:
                _wait_for(ledger, contestant.queued, len(jobs), what)
                with arena.workers(contestant, board, purpose=self.name) as workers:
                    arena.wait_for(board, jobs, workers, runs=1, seconds=180, what=what)
                    ran = time.monotonic_ns()
                    _wait_for(ledger, contestant.succeeded, len(jobs), what)
                    known = time.monotonic_ns()
                    stamps = sorted(board.last(jobs))
                expect_exactly(board, jobs, runs=1, what=what)
        return {
            "jobs_per_second": (len(stamps) - 1) / ((known - stamps[0]) / 1e9),
            "run_per_second": (len(stamps) - 1) / ((stamps[-1] - stamps[0]) / 1e9),
            "ledger_behind_ms": max(0.0, (known - ran) / 1e6),
        }


def _wait_for(
    ledger: psycopg.Connection[tuple[int]], question: str, wanted: int, what: str
) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        row = ledger.execute(question.encode()).fetchone()
        found = 0 if row is None else row[0]
        if found >= wanted:
            return
        if time.monotonic() > end:
            raise BenchmarkError(f"{what}: {question!r} counts {found} of {wanted} rows")
        time.sleep(_LOOK_SECONDS)
