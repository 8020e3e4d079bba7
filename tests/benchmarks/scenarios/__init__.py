"""What is measured, one module per question; each says what it measures and why it is fair."""

from collections.abc import Mapping
from typing import Protocol

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant

#: One round's figures of one contestant, by name, with the unit in the name.
Sample = Mapping[str, float]


class Scenario(Protocol):
    """One question, put to every contestant that has the ability."""

    name: str
    #: Who takes part: those with any of these abilities.
    needs: Ability
    #: Names of contestants that take part only when they are asked for by name.
    on_request: frozenset[str]
    #: A bound for what takes long and hardly varies; `None` for as many as are asked for.
    most_rounds: int | None

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Measure one round; raise `BenchmarkError` when its counts are not exact."""
