"""The leader's right to act, as far as this process knows of it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from leveret.store.lease import Grant, elapsed_seconds

__all__ = ["Leadership"]


class Leadership:
    """One epoch of the lease, from its grant until it is lost. Thread-safe."""

    def __init__(self, grant: Grant, *, clock: Callable[[], float] = elapsed_seconds) -> None:
        self.epoch = grant.epoch
        self._deadline = grant.deadline
        self._clock = clock
        self._lost = threading.Event()

    @property
    def remaining(self) -> float:
        """The seconds for which it may act without asking; 0 when it may not."""
        return 0.0 if self._lost.is_set() else max(0.0, self._deadline - self._clock())

    @property
    def is_lost(self) -> bool:
        """Whether the database has refused it."""
        return self._lost.is_set()

    def holds(self) -> bool:
        """Tell whether the term cannot have ended yet."""
        return self.remaining > 0

    def extend(self, grant: Grant) -> None:
        """Begin another term."""
        self._deadline = grant.deadline

    def lose(self) -> None:
        """Give it up for good: the database says that another has it, or may."""
        self._lost.set()
