"""A batch of messages, and all that it says: what one transaction of the recorder writes. Pure."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from leveret import names
from leveret.ledger.event import Beat, DeadLetterEvent, JobEvent, Malformed, Message
from leveret.ledger.fold import JobChange, fold
from leveret.ledger.letter import read_dead_letter
from leveret.ledger.record import read_records
from leveret.ledger.tap import read_published
from leveret.ledger.value import storable, wire

__all__ = ["Batch", "Reject", "StoredLetters"]

#: The ``type`` of a message with outcome records.
_RECORDS_TYPE = "leveret.records"


class Reject(NamedTuple):
    """A message that could not be understood."""

    queue: str
    routing_key: str
    error: str
    properties: bytes
    body: bytes


class StoredLetters(NamedTuple):
    """Dead letters that were new to the database."""

    actor: str | None
    queue: str | None
    reason: str
    letters: int


class Batch:
    """What a number of messages says about jobs, dead letters and workers."""

    def __init__(self) -> None:
        #: The changes of jobs, by their ids.
        self.jobs: dict[str, JobChange] = {}
        self.letters: list[DeadLetterEvent] = []
        #: What came of them, once they are written; without those that were there before.
        self.stored_letters: list[StoredLetters] = []
        #: How many of their groups were not there before.
        self.new_groups = 0
        #: The latest heartbeat of each worker.
        self.beats: dict[str, Beat] = {}
        self.rejects: list[Reject] = []
        #: How many events there were of each kind.
        self.counts: Counter[str] = Counter()

    def add(self, message: Message, received_at: float) -> None:
        """Take in a message; one that cannot be read becomes a reject, and never an error."""
        try:
            if message.queue != names.LEDGER:
                self._add_letter(message, received_at)
            elif message.exchange == names.OUTCOMES:
                self._add_records(message)
            else:
                self._add_published(message)
        except Malformed as error:
            self.reject(message, str(error))
        except Exception as error:  # noqa: BLE001 - one message must never stop the ledger
            self.reject(message, f"it cannot be read: {error!r}")

    def add_event(self, event: JobEvent) -> None:
        """Take in an event that no message told."""
        self.counts[event.kind] += 1
        fold(self.jobs, event)

    def reject(self, message: Message, error: str) -> None:
        """Set a message aside."""
        self.counts["reject"] += 1
        properties = getattr(message.properties, "raw", None) or wire(message.properties)
        self.rejects.append(
            Reject(
                message.queue,
                storable(message.routing_key),
                storable(error[:2000]),
                properties,
                message.body,
            )
        )

    def _add_published(self, message: Message) -> None:
        event = read_published(message)
        if event is None:
            # Its worker gives it an id, under which its records and its dead letter come.
            self.counts["anonymous"] += 1
            return
        self.counts["published"] += 1
        fold(self.jobs, event)

    def _add_records(self, message: Message) -> None:
        if message.properties.type != _RECORDS_TYPE:
            raise Malformed(f"the type {message.properties.type!r:.50} is not {_RECORDS_TYPE}")
        for event in read_records(message.body):
            if isinstance(event, Malformed):
                self.reject(message, str(event))
            elif isinstance(event, Beat):
                self.counts["heartbeat"] += 1
                known = self.beats.get(event.worker)
                if known is None or event.at > known.at:
                    self.beats[event.worker] = event
            else:
                self.add_event(event)

    def _add_letter(self, message: Message, received_at: float) -> None:
        letter, event = read_dead_letter(message, received_at=received_at)
        self.counts["dead_letter"] += 1
        self.letters.append(letter)
        if event is not None:
            fold(self.jobs, event)
