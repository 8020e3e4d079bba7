"""Counting dead letters by labels of which there are only so many.

What a dead letter says of its actor may be anybody's word: whoever may publish may write any name
onto a message. It is a label only when a worker has run an actor of that name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from leveret import metrics
from leveret.ledger.batch import Batch
from leveret.ledger.event import DeadLetterEvent
from leveret.message import Reason

__all__ = ["LetterCounts"]

UNKNOWN, OTHER = "unknown", "other"

_REASONS = frozenset(Reason) | {
    # the broker's own
    "delivery-limit",
    "expired",
    "maxlen",
    "rejected",
    # those of messages that no worker has had
    "unknown",
    "unroutable",
}
#: A worker gives these to jobs of actors that it has, though it does not run them.
_OF_AN_ACTOR = frozenset({Reason.BAD_ARGUMENTS, Reason.NO_DATABASE})
#: More actors than anybody has.
_MAX_ACTORS = 1000


class LetterCounts:
    """Counts the dead letters that batches have stored. For one thread."""

    def __init__(self, queues: Collection[str]) -> None:
        self._queues = frozenset(queues)
        self._actors: set[str] = set()

    def count(self, batch: Batch) -> None:
        """Count what a batch has stored."""
        self._learn(batch.letters)
        for stored in batch.stored_letters:
            metrics.DEAD_LETTERS.labels(
                stored.actor if stored.actor in self._actors else UNKNOWN,
                self._queue(stored.queue),
                stored.reason if stored.reason in _REASONS else OTHER,
            ).inc(stored.letters)
        metrics.DEAD_LETTER_GROUPS.inc(batch.new_groups)

    def _learn(self, letters: Iterable[DeadLetterEvent]) -> None:
        for letter in letters:
            if letter.actor is None or len(self._actors) >= _MAX_ACTORS:
                continue
            if letter.traceback is not None or (
                letter.reason in _OF_AN_ACTOR and letter.exchange is None
            ):
                self._actors.add(letter.actor)

    def _queue(self, queue: str | None) -> str:
        if queue is None:
            return UNKNOWN
        return queue if queue in self._queues else OTHER
