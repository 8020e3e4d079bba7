"""What publishers and connections count, for whoever shows it: `leveret.metrics` does.

The core needs no package for metrics, so it counts into plain numbers, which are fetched when
somebody reads the metrics. That costs less than a microsecond for a job, and takes no lock of its
own on the way of one: a lock that another thread holds while a process forks is held in the child
for ever, and publishing works after a fork.

In a process whose counts are to outlive it (a child of a worker pool) they cannot wait until they
are fetched. There an `Observer` is told of each.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from leveret import names, wheel
from leveret.errors import (
    ConfigurationError,
    PublisherBlocked,
    PublisherClosed,
    PublishError,
    PublishRejected,
    PublishTimeout,
)
from leveret.settings import Settings

__all__ = [
    "BOUNDS",
    "Meter",
    "Observer",
    "Totals",
    "connection_blocked",
    "connection_lost",
    "observe",
    "queue_of",
    "totals",
]

#: The upper bounds of durations that are counted, in seconds: from a no-op to ten minutes.
BOUNDS = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600,
)  # fmt: skip

#: A queue that is none of those of `LEVERET_QUEUES`.
OTHER_QUEUE = "other"


class Observer(Protocol):
    """Is told of everything that is counted, at once, and from any thread."""

    def confirmed(self, queue: str, seconds: float, traceparent: str | None) -> None:
        """Count a job that the broker has."""

    def failed(self, reason: str) -> None:
        """Count a job that could not be published."""

    def connection_lost(self) -> None:
        """Count a connection to the broker that was lost."""


class _Publishing(Protocol):
    """Who publishes jobs."""

    @property
    def unconfirmed(self) -> int:
        """How many of them are under way."""


@dataclass
class Totals:
    """Counts, from when the process began."""

    #: Jobs that the broker has confirmed, by queue.
    published: Counter[str] = field(default_factory=Counter)
    #: Jobs that could not be published, by reason.
    failed: Counter[str] = field(default_factory=Counter)
    #: Confirms by how long they took: at most each of `BOUNDS`, and longer.
    took: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    #: How long they took together.
    seconds: float = 0.0
    #: The latest of each bucket that has one: traceparent, seconds, when (since 1970).
    traced: dict[int, tuple[str, float, float]] = field(default_factory=dict)
    connections_lost: int = 0
    #: Jobs that are under way, now.
    unconfirmed: int = 0
    #: Whether the broker blocks a connection, now.
    is_blocked: bool = False

    def add(self, other: Totals) -> None:
        """Add what another has counted."""
        self.published.update(dict(other.published))  # copied: it may grow meanwhile
        self.failed.update(dict(other.failed))
        for index, number in enumerate(other.took):
            self.took[index] += number
        self.seconds += other.seconds
        for index, latest in list(other.traced.items()):
            if index not in self.traced or self.traced[index][2] < latest[2]:
                self.traced[index] = latest


_lock = threading.Lock()
_meters: set[Meter] = set()
#: Those whose publishers are gone. They are, whenever that may be, while garbage is collected.
_retired: deque[Meter] = deque()
#: What publishers that are gone have counted, and what no publisher counts.
_others = Totals()
_blocked: set[int] = set()
_observer: Observer | None = None


class Meter:
    """What one publisher counts; nothing of it is lost when the publisher is.

    For one thread at a time, as the owner sees to.
    """

    __slots__ = ("_owner", "_totals")

    def __init__(self, owner: _Publishing) -> None:
        self._totals = Totals()
        self._owner = weakref.ref(owner)
        weakref.finalize(owner, _retired.append, self).atexit = False
        with _lock:
            _sum_up_retired()
            _meters.add(self)

    def confirmed(self, queue: str, seconds: float, traceparent: str | None) -> None:
        """Count a job that the broker has confirmed after so many seconds."""
        if queue not in _labels:
            queue = _label(queue)
        if _observer is not None:
            _observer.confirmed(queue, seconds, traceparent)
            return
        counts = self._totals
        counts.published[queue] += 1
        bucket = bisect_left(BOUNDS, seconds)
        counts.took[bucket] += 1
        counts.seconds += seconds
        if traceparent is not None:
            counts.traced[bucket] = (traceparent, seconds, time.time())

    def failed(self, error: PublishError) -> None:
        """Count a job that could not be published."""
        reason = _reason(error)
        if _observer is not None:
            _observer.failed(reason)
        else:
            self._totals.failed[reason] += 1

    def add_to(self, sum_of_all: Totals) -> None:
        """Add its counts."""
        sum_of_all.add(self._totals)
        owner = self._owner()
        if owner is not None:
            sum_of_all.unconfirmed += owner.unconfirmed


def connection_lost() -> None:
    """Count a connection to the broker that was lost."""
    if _observer is not None:
        _observer.connection_lost()
        return
    with _lock:
        _others.connections_lost += 1


def connection_blocked(key: int, *, blocked: bool) -> None:
    """Take note that the broker blocks a connection, or does not any more."""
    with _lock:
        (_blocked.add if blocked else _blocked.discard)(key)


def totals() -> Totals:
    """Add up what the process has counted. Thread-safe."""
    found = Totals()
    with _lock:
        _sum_up_retired()
        found.add(_others)
        found.connections_lost = _others.connections_lost
        found.is_blocked = bool(_blocked)
        for meter in _meters:
            meter.add_to(found)
    return found


def observe(observer: Observer | None) -> None:
    """Have an observer told from now on, in the place of counting."""
    global _observer  # noqa: PLW0603 - one for the process
    _observer = observer


def queue_of(routing_key: str) -> str:
    """Name the queue that a routing key asks for."""
    return wheel.split_key(routing_key)[1].partition(".")[0]


def _sum_up_retired() -> None:
    """Keep what the publishers that are gone have counted, and forget their meters; locked."""
    while _retired:
        meter = _retired.popleft()
        meter.add_to(_others)
        _meters.discard(meter)


# ------------------------------------------------------------------------------------------- labels

_labels: frozenset[str] = frozenset()


def _label(queue: str) -> str:
    """Return the label of a queue: those who publish, or write into an outbox, make up none."""
    global _labels  # noqa: PLW0603 - read when the first job is published
    if not _labels:
        try:
            queues = Settings.from_env().queues
        except ConfigurationError:  # the process has settings of its own
            queues = names.DEFAULT_QUEUES
        _labels = frozenset({*queues, names.ANY_QUEUE})
    return queue if queue in _labels else OTHER_QUEUE


_REASONS: Mapping[type[PublishError], str] = {
    PublishTimeout: "timeout",
    PublishRejected: "rejected",
    PublisherBlocked: "blocked",
    PublisherClosed: "closed",
}


def _reason(error: PublishError) -> str:
    return _REASONS.get(type(error), "invalid")


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - some thread of the parent may have held it
    _lock = threading.Lock()
    _blocked.clear()


os.register_at_fork(after_in_child=_after_fork)
