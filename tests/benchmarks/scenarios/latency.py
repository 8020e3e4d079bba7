"""How long a job takes from the publish call to the first line of its actor on an idle system.

Two processes of four threads wait; one publisher sends one job at a time with a random pause, so
that nothing queues. Both ends read `CLOCK_MONOTONIC`, which is one clock for the whole machine.

Fair because the pauses are the same random ones for everybody and the workers are warm. A quorum
queue writes to disk before it delivers, which most peers' classic queue does not.
"""

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.figures import percentile
from tests.benchmarks.scenarios import Repeated, Sample

_WARM_UP = 50


class Latency(Repeated):
    """Time from the publish call to the actor's start."""

    name = "latency"
    needs = Ability.LATENCY

    def __init__(self, *, jobs: int = 200) -> None:
        self._warm = range(_WARM_UP)
        self._jobs = range(_WARM_UP, _WARM_UP + jobs)

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Publish one by one to warm workers."""
        jobs = self._jobs
        arena.prepare(contestant)
        with arena.warm(contestant, self._warm, jobs, purpose=self.name) as (board, workers):
            sent = arena.pace(contestant, jobs, low=0.005, high=0.025, seed=len(jobs))
            what = f"{contestant.name} {self.name}"
            took = arena.waits(board, jobs, workers, began=sent, what=what)
        return {"p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99)}
