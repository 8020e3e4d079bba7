"""The arithmetic of the results: medians, spreads, percentiles and ratios. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What several rounds of one measurement gave."""

    #: The middle value; the mean of the two middle ones for an even number of rounds.
    median: float
    low: float
    high: float
    rounds: int

    @property
    def width(self) -> float:
        """How far the rounds lie apart, as a share of their median; 0 when the median is 0."""
        return (self.high - self.low) / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of `values`; raise `ValueError` when there is none."""
    if not values:
        raise ValueError("there is no spread of no values: measure at least one round")
    return Spread(
        median=statistics.median(values), low=min(values), high=max(values), rounds=len(values)
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed.

    The nearest-rank definition: always a value that was measured, never an interpolated one.
    """
    if not values:
        raise ValueError("there is no percentile of no values: measure at least one")
    if not 0 <= share <= 1:
        raise ValueError(f"a percentile's share lies between 0 and 1, not {share}")
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def ratio(ours: Sequence[float], base: Sequence[float]) -> float | None:
    """Return median over median; `None` when either side was not measured or the base is 0."""
    if not ours or not base:
        return None
    below = statistics.median(base)
    return statistics.median(ours) / below if below else None


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Return `items` beginning with the one at `by`, so that each round has another first."""
    if not items:
        return []
    start = by % len(items)
    return [*items[start:], *items[:start]]
