"""How many deliveries a worker holds: enough to be never idle, and no more."""

from __future__ import annotations

__all__ = ["PrefetchGovernor"]

#: Work that is held in advance, in seconds of all threads.
_AHEAD_SECONDS = 0.1
#: Bounds, for each thread.
_FEWEST = 2
_MOST = 64
#: How fast the mean follows.
_WEIGHT = 0.05


class PrefetchGovernor:
    """Follows how long jobs take, and derives the prefetch from it.

    Short jobs need many deliveries on the way, or the threads wait for the broker; long jobs need
    few, or they wait here while other workers are idle. Only for the IO thread.
    """

    def __init__(self, threads: int, *, fixed: int = 0) -> None:
        self._threads = threads
        self._fixed = fixed
        self._mean: float | None = None
        #: The prefetch to use now.
        self.prefetch = fixed or threads * _FEWEST

    def observe(self, seconds: float) -> None:
        """Take note of how long a job has run."""
        mean = self._mean
        self._mean = seconds if mean is None else mean + _WEIGHT * (seconds - mean)

    def adapt(self) -> int:
        """Return the prefetch to use from now on; it changes only by a factor of two or more."""
        if not self._fixed and self._mean is not None:
            each = _AHEAD_SECONDS / max(self._mean, 1e-6)
            wanted = self._threads * int(min(_MOST, max(_FEWEST, each)))
            if not self.prefetch / 2 < wanted < self.prefetch * 2:
                self.prefetch = wanted
        return self.prefetch
