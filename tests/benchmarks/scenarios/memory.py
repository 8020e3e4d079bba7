"""What idle workers hold: two processes of four threads, and whatever launched them.

Measured after a few hundred jobs, so that everything that running needs is loaded, and after a
pause. PSS counts each page once, so a library that forks is not charged twice for what its
processes share; the plain sum of RSS is shown beside it.
"""

import time

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.scenarios import Sample

_SETTLE_SECONDS = 1.0


class MemoryUse:
    """Memory of idle workers."""

    name = "memory"
    needs = Ability.MEMORY
    on_request: frozenset[str] = frozenset()

    def __init__(self, *, jobs: int = 300) -> None:
        self._jobs = range(jobs)

    def rounds(self, asked: int) -> int:
        """Return one: it hardly varies."""
        return 1

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Warm the workers up and weigh them."""
        arena.prepare(contestant)
        jobs = self._jobs
        with arena.warm(contestant, jobs, jobs, purpose=self.name) as (_, workers):
            time.sleep(_SETTLE_SECONDS)
            memory = workers.memory()
        return {"pss_mb": memory.pss_mb, "rss_mb": memory.rss_mb, "processes": memory.processes}
