"""How many jobs a second one process publishes.

Three ways: one at a time, each call waiting for the broker's confirm; one at a time without
confirms (a lost connection loses jobs: shown because it is some libraries' default); and pipelined,
many confirms outstanding at once, all awaited before the clock stops.

Fair because every message is persistent, no worker runs, the clock covers only the publishing
calls after a warm-up, and the queue must then hold exactly what was published. Each contestant has
a new process and an empty queue of the kind that its documentation recommends: Leveret's is a
quorum queue with the ledger's copy beside it, most peers' is one classic queue.
"""

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.driver import WARM_UP
from tests.benchmarks.scenarios import Sample

_WAYS = (
    ("confirmed_per_second", Ability.CONFIRMED, {"confirms": True, "pipelined": False}),
    ("unconfirmed_per_second", Ability.UNCONFIRMED, {"confirms": False, "pipelined": False}),
    ("pipelined_per_second", Ability.PIPELINED, {"confirms": True, "pipelined": True}),
)


class Publish:
    """Publishing speed."""

    name = "publish"
    needs = Ability.CONFIRMED
    on_request: frozenset[str] = frozenset()

    def __init__(self, *, one_at_a_time: int = 1500, pipelined: int = 10_000) -> None:
        self._one_at_a_time = one_at_a_time
        self._pipelined = pipelined

    def rounds(self, asked: int) -> int:
        """Return twice as many: its rounds are short, so whatever else runs disturbs them most."""
        return asked * 2

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Publish in each way that the contestant has."""
        sample: dict[str, float] = {}
        for figure, ability, how in _WAYS:
            if not contestant.can(ability):
                continue
            jobs = self._pipelined if how["pipelined"] else self._one_at_a_time
            arena.prepare(contestant)
            seconds = arena.drive(contestant, "publish", {"jobs": jobs, "warm_up": WARM_UP, **how})
            arena.expect_ready(contestant, WARM_UP + jobs)
            sample[figure] = jobs / seconds
        arena.prepare(contestant)
        return sample
