"""What is measured, one module per question; each says what it measures and why it is fair."""

from collections.abc import Mapping
from typing import Protocol

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant

#: One round's figures of one contestant, by name, with the unit in the name.
Sample = Mapping[str, float]


class Repeated:
    """What most scenarios answer: everybody takes part, in as many rounds as were asked for."""

    on_request: frozenset[str] = frozenset()

    def rounds(self, asked: int) -> int:
        """Return as many."""
        return asked


class Scenario(Protocol):
    """One question, put to every contestant that has the ability."""

    @property
    def name(self) -> str:
        """What `--only` calls it."""

    @property
    def needs(self) -> Ability:
        """Who takes part: those with this ability."""

    @property
    def on_request(self) -> frozenset[str]:
        """Names of contestants that take part only when they are asked for by name."""

    def rounds(self, asked: int) -> int:
        """Return how many rounds to run when so many are asked for."""

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Measure one round; raise `BenchmarkError` when its counts are not exact."""
