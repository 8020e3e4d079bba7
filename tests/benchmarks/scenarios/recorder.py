"""How many jobs a second one recorder writes into the ledger, alone on the machine.

All jobs are published and run while no recorder is there, so that the ledger's queue holds what was
really told of them: each job as it was published, and the records of real workers. Then the workers
end and a recorder starts. The clock runs from the first look that finds rows to the one that finds
every job's row saying "succeeded"; what was written before the clock started is not counted.

Each job is two events: the job, and its outcome. Since the jobs have waited, their rows are written
first and changed later, which costs more than the one insert of a job that is told at once.
"""

import time

import psycopg

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import DRAMATIQ_TRACKED, Ability, Contestant
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.scenarios import Repeated, Sample

_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 180.0


class Recording(Repeated):
    """Speed of writing what was told of jobs."""

    name = "recorder"
    needs = Ability.TRACKED
    #: It has no recorder.
    on_request: frozenset[str] = frozenset({DRAMATIQ_TRACKED})

    def __init__(self, *, jobs: int = 20_000) -> None:
        self._jobs = range(jobs)

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Have all jobs run, then time the recorder."""
        if not contestant.beside:
            raise BenchmarkError(f"{contestant.name} has no recorder to measure")
        jobs = self._jobs
        what = f"{contestant.name} {self.name}"
        arena.prepare(contestant)
        url = arena.new_database(contestant)
        with arena.drained(contestant, "noop", jobs, purpose=self.name):
            arena.expect_ready(contestant, 0)
        with (
            psycopg.connect(url, autocommit=True) as ledger,
            arena.beside(contestant) as recorder,
        ):
            end = time.monotonic() + _PATIENCE_SECONDS
            first: tuple[float, int] | None = None
            while True:
                recorder.check()
                now = time.monotonic()
                written = _events(ledger, contestant)
                if first is None and written:
                    first = (now, written)
                if written == 2 * len(jobs):
                    break
                if now > end:
                    raise BenchmarkError(f"{what}: {written} of {2 * len(jobs)} events are written")
                time.sleep(_LOOK_SECONDS)
        began, before = first or (now, 0)
        per_second = (written - before) / max(now - began, _LOOK_SECONDS)
        return {"recorder_jobs_per_second": per_second / 2, "events_per_second": per_second}


def _events(ledger: psycopg.Connection[tuple[int]], contestant: Contestant) -> int:
    """Count the jobs that are known, and once more those whose outcome is known."""
    query = f"SELECT ({contestant.queued}), ({contestant.succeeded})"
    row = ledger.execute(query.encode()).fetchone()
    return sum(row or ())
