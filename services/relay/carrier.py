"""Publishing a batch: many messages at once, and what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pika

from leveret.amqp import IOThread, Outbound, Post
from leveret.amqp.connection import thread_name
from leveret.errors import PublishError, PublishTimeout
from leveret.meter import Meter, queue_of
from services.relay.spans import Passage

__all__ = ["Carrier", "Parcel"]

#: How often somebody who waits for the broker looks whether it is there.
_LOOK_SECONDS = 0.1
#: A batch that is told to end may wait so long for confirms that are on their way.
_FAREWELL_SECONDS = 2.0


class Parcel(Post):
    """One row's message, and what became of it."""

    __slots__ = (
        "again",
        "deadline",
        "error",
        "passage",
        "row",
        "settled",
        "settled_at",
        "shipment",
    )

    def __init__(
        self,
        row: int,
        exchange: str,
        key: str,
        properties: pika.BasicProperties,
        body: bytes,
        *,
        again: bool = False,
        passage: Passage | None = None,
    ) -> None:
        super().__init__(exchange, key, properties, body)
        #: Its spans, if it is traced.
        self.passage = passage
        if passage is not None:
            passage.addressed(self)
        #: The row's id.
        self.row = row
        #: Whether its job has been published, and has ended, before.
        self.again = again
        self.deadline: float | None = None
        #: When the broker answered (`time.monotonic`).
        self.settled_at = 0.0
        #: Whether the broker has answered.
        self.settled = False
        #: Why the broker does not have it.
        self.error: PublishError | None = None
        self.shipment: _Shipment | None = None

    @property
    def delivered(self) -> bool:
        """Whether the broker has confirmed it."""
        return self.settled and self.error is None

    def confirmed(self) -> None:
        """Take note that the broker has it."""
        self._settle(None)

    def failed(self, error: PublishError) -> None:
        """Take note that it does not, or that nobody knows."""
        self._settle(error)

    def _settle(self, error: PublishError | None) -> None:
        shipment = self.shipment
        if shipment is None or self.settled:
            return
        self.error, self.settled, self.settled_at = error, True, time.monotonic()
        if self.passage is not None:
            self.passage.end(error)
        shipment.settle_one()


class _Shipment:
    """Parcels that are waited for together."""

    def __init__(self, count: int) -> None:
        self._open = count
        self.event = threading.Event()

    def done(self) -> bool:
        return self._open <= 0

    def settle_one(self) -> None:
        """Count one down. Never from two threads at once: one thread settles at a time."""
        self._open -= 1
        if self._open <= 0:
            self.event.set()


class Carrier:
    """One connection to the broker for all databases. Thread-safe."""

    def __init__(self, url: str, *, stop: threading.Event, seconds: float = 10.0) -> None:
        self._stop = stop
        self._seconds = seconds
        self._blocked: str | None = None
        self._meter = Meter(self)
        self._metering = threading.Lock()
        self._io = IOThread(thread_name("relay"))
        self._outbound = Outbound(self._io, url, name="leveret-relay", on_blocked=self._on_blocked)
        self._io.call_soon(self._outbound.open)

    @property
    def is_ready(self) -> bool:
        """Whether the broker takes messages now."""
        return self._outbound.is_up and self._blocked is None

    @property
    def blocked(self) -> str | None:
        """Why the broker blocks publishers: an alarm."""
        return self._blocked

    @property
    def is_alive(self) -> bool:
        """Whether the IO thread runs."""
        return self._io.is_alive

    @property
    def unconfirmed(self) -> int:
        """How many messages are under way."""
        return self._outbound.pending

    def wait_ready(self, seconds: float) -> bool:
        """Wait until the broker takes messages, for so long; False after that, or at the end."""
        end = time.monotonic() + seconds
        while not self.is_ready:
            if self._stop.wait(_LOOK_SECONDS) or time.monotonic() >= end:
                return False
        return not self._stop.is_set()

    def carry(self, parcels: Sequence[Parcel]) -> None:
        """Publish parcels in their order; return when each is settled, or its time is over."""
        shipment = _Shipment(len(parcels))
        began = time.monotonic()
        end = began + self._seconds
        for parcel in parcels:
            parcel.shipment, parcel.deadline = shipment, end
        self.send(parcels)
        self._io.drive(lambda: shipment.done() or self._stop.is_set(), self._seconds)
        if self._outbound.pending:
            self._io.call_back()
        while not shipment.event.wait(_LOOK_SECONDS):
            # The deadline of each parcel settles it; past that, nobody is left to see to it.
            if self._stop.is_set():
                end = min(end, time.monotonic() + _FAREWELL_SECONDS)
            if time.monotonic() > end + 1.0:
                break
        self._count(parcels, began)

    def _count(self, parcels: Sequence[Parcel], began: float) -> None:
        with self._metering:
            for parcel in parcels:
                if parcel.delivered:
                    queue = queue_of(parcel.routing_key)
                    seconds = parcel.settled_at - began
                    self._meter.confirmed(queue, seconds, _traceparent(parcel.properties))
                else:
                    self._meter.failed(parcel.error or PublishTimeout("no confirm came in time"))

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Begin to publish; a single one at once, from this thread."""
        if len(parcels) == 1 and self._outbound.send_if_idle(parcels[0]):
            return
        posts: list[Post] = list(parcels)
        self._io.call_soon(lambda: self._outbound.send_many(posts))

    def close(self) -> None:
        """Disconnect."""
        closed = threading.Event()
        self._io.call_soon(lambda: self._outbound.close(closed.set))
        closed.wait(3.0)
        self._io.stop()

    def _on_blocked(self, reason: str | None) -> None:
        self._blocked = reason


def _traceparent(properties: pika.BasicProperties) -> str | None:
    found = (properties.headers or {}).get("traceparent")
    return found if isinstance(found, str) else None
