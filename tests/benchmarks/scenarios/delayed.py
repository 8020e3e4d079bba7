"""Whether jobs for later are on time, and what waiting for them costs the workers' memory.

20,000 jobs are published in random order, due evenly over one minute that begins when all are
published. Two processes of four threads run all the time. Late is a start after the wanted time;
early is a start before it, by any amount; lost is a job that has not run a minute after the last
was due. Memory is the growth of the worker processes from idle to all jobs waiting.

Fair because every library is told the remaining delay in its own unit at the moment of its own
call, rounded up, and because no library is asked to do this that does not offer arbitrary delays.
"""

import random
import time

from tests.benchmarks.arena import Arena
from tests.benchmarks.board import Board
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.figures import percentile
from tests.benchmarks.scenarios import Sample

_WARM_UP = 50
_GRACE_SECONDS = 60.0


class Delayed:
    """Punctuality and memory of waiting jobs."""

    name = "delayed"
    needs = Ability.DELAYED
    # It takes a minute and a half for each, so by default only the one that ours is held against.
    on_request = frozenset({"celery"})

    def __init__(self, *, jobs: int = 20_000, seconds: float = 60.0, lead: float = 15.0) -> None:
        self._warm = range(_WARM_UP)
        self._jobs = range(_WARM_UP, _WARM_UP + jobs)
        self._seconds = seconds
        self._lead = lead

    def rounds(self, asked: int) -> int:
        """Return one: it takes a minute and a half, over which disturbances even out."""
        return 1

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Publish all, measure the waiting workers, and wait for the last job."""
        jobs = self._jobs
        arena.prepare(contestant)
        with arena.warm(contestant, self._warm, jobs, purpose=self.name) as (board, workers):
            time.sleep(1.0)  # let the memory settle
            idle = workers.memory()
            due = self._due()
            confirms = not contestant.can(Ability.UNCONFIRMED)
            seconds = arena.drive(contestant, "later", {"jobs": due, "confirms": confirms})
            begin = min(when for _, when in due)
            spare = (begin - time.monotonic_ns()) / 1e9 - 0.5
            if spare < 0:
                raise BenchmarkError(
                    f"{contestant.name} needed {seconds:.1f} s to publish {len(jobs)} delayed "
                    f"jobs; give it a longer lead than {self._lead:.0f} s"
                )
            time.sleep(spare)
            waiting = workers.memory()
            # Whatever has not run by then is counted as lost.
            arena.finished(board, jobs, workers, runs=1, seconds=self._seconds + _GRACE_SECONDS)
            return {
                **_punctuality(board, due),
                "pss_mb_per_10k": (waiting.pss_mb - idle.pss_mb) / len(jobs) * 10_000,
                "rss_mb_per_10k": (waiting.rss_mb - idle.rss_mb) / len(jobs) * 10_000,
                "publish_per_second": len(jobs) / seconds,
            }

    def _due(self) -> list[tuple[int, int]]:
        begin = time.monotonic_ns() + round(self._lead * 1e9)
        step = self._seconds * 1e9 / len(self._jobs)
        due = [(job, begin + round(step * place)) for place, job in enumerate(self._jobs)]
        random.Random(len(due)).shuffle(due)
        return due


def _punctuality(board: Board, due: list[tuple[int, int]]) -> dict[str, float]:
    first, runs = board.first(range(board.size)), board.runs(range(board.size))
    late = [(first[job] - when) / 1e9 for job, when in due if runs[job]]
    if not late:
        raise BenchmarkError("no delayed job ran at all")
    return {
        "late_p50_seconds": percentile(late, 0.5),
        "late_p99_seconds": percentile(late, 0.99),
        "late_most_seconds": max(late),
        "early": sum(seconds < 0 for seconds in late),
        "lost": len(due) - len(late),
        "twice": sum(runs[job] > 1 for job, _ in due),
    }
