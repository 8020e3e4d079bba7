"""How long it takes until many jobs that fail once have all succeeded.

5,000 jobs wait in the queue; each raises on its first run and is retried after a fixed back-off of
one second. The clock runs from the first start to the last success.

Fair because everybody's back-off has one second as its lower and upper bound and the body is the
same. Dramatiq's jitter then pauses half a second to one, which is to its advantage. Every job must
have run exactly twice.
"""

from tests.benchmarks.arena import Arena, expect_exactly
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.scenarios import Sample


class Retry:
    """Speed of failing, waiting and succeeding."""

    name = "retry"
    needs = Ability.RETRY
    on_request: frozenset[str] = frozenset()

    def __init__(self, *, jobs: int = 5_000) -> None:
        self._jobs = range(jobs)

    def rounds(self, asked: int) -> int:
        """Return as many."""
        return asked

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Fill, start the workers, and time the first start to the last success."""
        jobs = self._jobs
        arena.prepare(contestant)
        with arena.board(len(jobs)) as board:
            arena.fill(contestant, "flaky", jobs)
            with arena.workers(contestant, board, purpose=self.name) as workers:
                what = f"{contestant.name} {self.name}"
                arena.wait_for(board, jobs, workers, runs=2, seconds=120, what=what)
            expect_exactly(board, jobs, runs=2, what=what)
            seconds = (max(board.last(jobs)) - min(board.first(jobs))) / 1e9
        return {"jobs_per_second": len(jobs) / seconds, "seconds": seconds}
