"""What the ledger is told, read: from AMQP messages to events. Pure.

==========================  ===================================================================
where it came in            what it is
==========================  ===================================================================
``leveret.jobs``,           a job as it was published (the tap at the entries); no matter how
``leveret.delay``           malformed, it is a row as soon as it says which job it is
``leveret.outcomes``        records, in groups: what a worker did (`leveret.worker.records`)
``leveret.dead.<queue>``    a dead letter: a worker's (`leveret.worker.copies`), or the broker's
``leveret.unroutable``      a message that no queue wanted, which is a dead letter, too
==========================  ===================================================================

What cannot be read at all raises `Malformed`, and is kept as it is. A header that says who wrote a
dead letter is believed only where publishers cannot write: the exchange ``leveret.dead`` is the
workers', and what the broker itself sent there has ``x-death``, which workers take off.

Times are seconds since 1970, rounded to the microsecond that PostgreSQL keeps, so that they compare
alike here and there.
"""

from __future__ import annotations

import math
import uuid
from enum import IntEnum
from typing import NamedTuple

import pika

from leveret.errors import LeveretError

__all__ = [
    "LONG_AGO",
    "AttemptEvent",
    "Beat",
    "Content",
    "DeadLetterEvent",
    "Event",
    "JobEvent",
    "Kind",
    "Malformed",
    "Message",
    "Progress",
    "Standing",
]

#: Before any time: that of events of which nobody said when.
LONG_AGO = -math.inf


class Malformed(LeveretError, ValueError):  # noqa: N818 - says what it is
    """A message, or a record in it, is none that the ledger knows."""


class Kind(IntEnum):
    """What happened; decides between two events of one attempt at the same time."""

    PUBLISHED = 0
    STARTED = 1
    ABANDONED = 2
    QUARANTINED = 3
    SNOOZED = 4
    RETRYING = 5
    EXPIRED = 6
    CANCELLED = 7
    DEAD = 8
    SUCCEEDED = 9


class Message(NamedTuple):
    """A message as the recorder received it."""

    queue: str
    exchange: str
    routing_key: str
    properties: pika.BasicProperties
    body: bytes
    redelivered: bool


class Content(NamedTuple):
    """What was published."""

    actor: str | None
    queue: str | None
    routing_key: str | None
    content_type: str | None
    body: bytes | None
    #: As JSON.
    headers: str | None
    #: As encoded on the wire.
    properties: bytes | None
    priority: int | None
    correlation_id: str | None
    app_id: str | None
    idempotency_key: str | None
    traceparent: str | None
    expires_at: float | None
    published_at: float | None


class Standing(NamedTuple):
    """Where a job stands after an event. Compared by the first five: the greater one is newer."""

    run: int
    #: 0 while something follows, 2 for success, 1 for any other end.
    settled: int
    attempt: int
    event_at: float
    kind: int
    state: str
    due_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    reason: str | None = None
    error_type: str | None = None
    error: str | None = None
    result: str | None = None
    result_ref: str | None = None
    result_lost: str | None = None


class AttemptEvent(NamedTuple):
    """One run of the actor. Compared by ``(rank, ended_at, due_at)``: the greater one is newer.

    What makes it the same run is the first three.
    """

    run: int
    attempt: int
    started_at: float
    #: The `Kind` of what is known of it.
    rank: int
    ended_at: float | None = None
    due_at: float | None = None
    outcome: str = "running"
    worker: str | None = None
    queue: str | None = None
    reason: str | None = None
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None


class Progress(NamedTuple):
    """How far a job has come."""

    at: float
    share: float
    note: str | None


class JobEvent(NamedTuple):
    """Something happened to a job."""

    id: str
    kind: str
    standing: Standing
    content: Content | None = None
    #: As the worker says.
    actor: str | None = None
    queue: str | None = None
    attempt: AttemptEvent | None = None
    progress: Progress | None = None


class Beat(NamedTuple):
    """A worker is alive."""

    worker: str
    queues: list[str]
    threads: int
    running: list[str]
    at: float


class DeadLetterEvent(NamedTuple):
    """A message was given up."""

    key: str
    #: Then another message may have the same key, unless this is a redelivery.
    key_is_digest: bool
    redelivered: bool
    job_id: str | None
    run: int
    attempt: int
    actor: str | None
    queue: str | None
    routing_key: str
    exchange: str | None
    reason: str
    error_type: str | None
    error: str | None
    traceback: str | None
    fingerprint: str
    body: bytes
    properties: bytes
    headers: str | None
    dead_at: float

    def with_another_key(self) -> DeadLetterEvent:
        """Return the same with a key of its own, for the exact like of another letter."""
        return self._replace(key=f"{self.key}:{uuid.uuid4().hex}")


Event = JobEvent | Beat
