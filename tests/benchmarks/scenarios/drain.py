"""How many jobs a second the workers run when the work is nothing: what the machinery costs.

The queue is filled while no worker runs; then two processes of four threads start, with everybody's
defaults, and the clock runs from the first job to the last, so that nobody's boot counts.

Fair because all contestants run the same body on the same shared board, and because all jobs must
have run exactly once. Leveret meanwhile publishes an outcome record for each job and waits for
its confirm before it acks; no peer does.
"""

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.scenarios import Repeated, Sample


class Drain(Repeated):
    """Speed of running jobs that do nothing."""

    name = "drain"
    needs = Ability.DRAIN

    def __init__(self, *, jobs: int = 30_000) -> None:
        self._jobs = range(jobs)

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Fill, start the workers, and time the first job to the last."""
        jobs = self._jobs
        arena.prepare(contestant)
        with arena.drained(contestant, "noop", jobs, purpose=self.name) as board:
            stamps = sorted(board.last(jobs))
        tenth = len(stamps) // 10
        return {
            "jobs_per_second": (len(stamps) - 1) / ((stamps[-1] - stamps[0]) / 1e9),
            # Without the first and the last tenth, where not all processes may be at work.
            "middle_jobs_per_second": (len(stamps) - 2 * tenth)
            / ((stamps[-tenth - 1] - stamps[tenth]) / 1e9),
        }
