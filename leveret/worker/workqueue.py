"""Deliveries that wait for a worker thread."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from leveret.worker.delivery import Delivery

__all__ = ["WorkQueue"]


class WorkQueue:
    """A priority queue, first in first out among equals. Thread-safe.

    The blocking is `queue.SimpleQueue`'s, which is C and wakes one thread for each item.
    """

    def __init__(self) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._heap: list[tuple[int, int, Delivery]] = []
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._unfinished = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, delivery: Delivery, priority: int = 0) -> None:
        """Add a delivery; lower priorities come first."""
        with self._lock:
            heapq.heappush(self._heap, (priority, next(self._order), delivery))
            self._unfinished += 1
        self._tokens.put(None)

    @property
    def unfinished(self) -> int:
        """Deliveries that wait, and those that were taken and are not `done`."""
        return self._unfinished

    def done(self) -> None:
        """Say that a delivery that was taken is finished with."""
        with self._lock:
            self._unfinished -= 1

    def get(self, timeout: float) -> Delivery | None:
        """Take the next delivery, waiting for one at most ``timeout`` seconds; then call `done`."""
        try:
            self._tokens.get(timeout=timeout)
        except Empty:
            return None
        with self._lock:
            return heapq.heappop(self._heap)[2] if self._heap else None

    def wake(self, threads: int) -> None:
        """Let that many waiting threads return from `get` with nothing."""
        for _ in range(threads):
            self._tokens.put(None)

    def take(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take those that wait and are wanted, without a worker thread."""
        with self._lock:
            taken = [entry[2] for entry in self._heap if wanted(entry[2])]
            if taken:
                gone = set(map(id, taken))
                self._heap = [entry for entry in self._heap if id(entry[2]) not in gone]
                heapq.heapify(self._heap)
                self._unfinished -= len(taken)
        return taken

    def clear(self) -> list[Delivery]:
        """Take all that wait."""
        with self._lock:
            waiting = [entry[2] for entry in self._heap]
            self._heap.clear()
            self._unfinished -= len(waiting)
        return waiting
