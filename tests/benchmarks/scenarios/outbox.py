"""How long a job takes from a commit to the first line of its actor on an idle system.

Two processes of four threads wait, and one relay; one service commits one job at a time to its
outbox, with a random pause, so that nothing queues. The clock runs from the moment when the commit
is asked for. Both ends read `CLOCK_MONOTONIC`, which is one clock for the whole machine.
"""

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.figures import percentile
from tests.benchmarks.scenarios import Repeated, Sample

_WARM_UP = 50


class OutboxStart(Repeated):
    """Time from the commit to the actor's start."""

    name = "outbox"
    needs = Ability.OUTBOX

    def __init__(self, *, jobs: int = 200) -> None:
        self._warm = range(_WARM_UP)
        self._jobs = range(_WARM_UP, _WARM_UP + jobs)

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Commit one by one to a warm relay and warm workers."""
        jobs = self._jobs
        arena.prepare(contestant)
        arena.new_database(contestant)
        what = f"{contestant.name} {self.name}"
        with (
            arena.beside(contestant),
            arena.warm(contestant, self._warm, jobs, purpose=self.name) as (board, workers),
        ):
            began: list[int] = arena.drive(
                contestant,
                "commit",
                {"first": jobs.start, "jobs": len(jobs), "low": 0.005, "high": 0.05, "seed": 1},
            )
            took = arena.waits(board, jobs, workers, began=began, what=what)
        return {"start_p50_ms": percentile(took, 0.5), "start_p99_ms": percentile(took, 0.99)}
