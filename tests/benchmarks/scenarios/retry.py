"""How long it takes until many jobs that fail once have all succeeded.

5,000 jobs wait in the queue; each raises on its first run and is retried after a fixed back-off of
one second. The clock runs from the first start to the last success.

Fair because everybody's back-off has one second as its lower and upper bound and the body is the
same. Dramatiq's jitter then pauses half a second to one, which is to its advantage. Every job must
have run exactly twice.
"""

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.scenarios import Repeated, Sample


class Retry(Repeated):
    """Speed of failing, waiting and succeeding."""

    name = "retry"
    needs = Ability.RETRY

    def __init__(self, *, jobs: int = 5_000) -> None:
        self._jobs = range(jobs)

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Fill, start the workers, and time the first start to the last success."""
        jobs = self._jobs
        arena.prepare(contestant)
        with arena.drained(
            contestant, "flaky", jobs, runs=2, seconds=120, purpose=self.name
        ) as board:
            seconds = (max(board.last(jobs)) - min(board.first(jobs))) / 1e9
        return {"jobs_per_second": len(jobs) / seconds, "seconds": seconds}
