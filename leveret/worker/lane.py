"""The quarantine lane: suspects run one at a time, alone in their process.

A suspect is a delivery that has ended twice with the death of its worker. It may be the murderer or
a neighbour. Here it is taken by `basic.get` only when nothing else runs, so what is taken is what
runs, and a further death is charged to nobody else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pika.exceptions

from leveret import names
from leveret.amqp import IOThread, Lengths, Link
from leveret.message import PREFIX
from leveret.worker.delivery import Delivery, Session
from leveret.worker.intake import at_once

if TYPE_CHECKING:
    from leveret.amqp.connection import Connection
    from leveret.worker.intake import Prepare

__all__ = ["LaneIntake", "LaneWatch"]

log = logging.getLogger("leveret.worker")

_POLL_SECONDS = 0.5
#: Where one suspect was, there are often more.
_BUSY_POLL_SECONDS = 0.02
_BUSY_SECONDS = 2.0
_LOOK_SECONDS = 10.0


class LaneIntake:
    """Takes one suspect at a time from the quarantine queues of ``queues``. For the IO thread."""

    def __init__(
        self,
        io: IOThread,
        url: str,
        *,
        name: str,
        queues: Iterable[str],
        on_delivery: Callable[[Delivery], object],
        prepare: Prepare | None = None,
    ) -> None:
        self._io = io
        self._link = Link(io, url, name=name, on_up=self._up, on_down=self._down)
        self._queues = tuple(queues)
        self._on_delivery = on_delivery
        self._prepare = prepare or at_once
        self._connection: Connection | None = None
        self._sessions: dict[str, Session] = {}
        self._survived: set[str] = set()
        self._next = 0
        self._stopping = False
        #: When it last had a suspect (`time.monotonic`).
        self.last_busy = time.monotonic()

    @property
    def consuming(self) -> dict[str, bool]:
        """Tell of each queue whether it can be asked."""
        return {queue: queue in self._sessions for queue in self._queues}

    def open(self) -> None:
        """Start asking."""
        self._link.open()
        self._poll()

    def stop(self) -> None:
        """Stop asking."""
        self._stopping = True

    def close(self, on_closed: Callable[[], object] | None = None) -> None:
        """Disconnect."""
        self._stopping = True
        self._link.close(on_closed)

    def set_prefetch(self, prefetch: int) -> None:
        """Ignore it: the lane has one slot."""

    def charged(self, delivery: Delivery) -> int:
        """Count the deaths since the suspect came to the lane."""
        return max(0, delivery.unsuccessful - (delivery.label in self._survived))

    def _up(self, connection: Connection) -> None:
        self._connection = connection
        self._prepare(connection, lambda: self._begin(connection))

    def _begin(self, connection: Connection) -> None:
        if connection is self._connection:
            for queue in self._queues:
                self._open_channel(queue)

    def _open_channel(self, queue: str) -> None:
        connection = self._connection
        if connection is not None and connection.is_open and not self._stopping:
            connection.channel(on_open_callback=lambda channel: self._channel_open(queue, channel))

    def _channel_open(self, queue: str, channel: Any) -> None:
        session = Session(channel, queue, names.quarantine_queue(queue))
        self._sessions[queue] = session
        channel.add_on_close_callback(lambda _channel, _error: self._closed(session))

    def _down(self, _reason: str) -> None:
        self._connection = None
        for session in list(self._sessions.values()):
            self._closed(session)

    def _closed(self, session: Session) -> None:
        if session.is_over:
            return
        session.is_over = True
        self._survived.update(delivery.label for delivery in session.held.values())
        self._sessions.pop(session.queue, None)
        self._io.call_later(1.0, lambda: self._open_channel(session.queue))

    def _poll(self) -> None:
        """Ask the next queue, unless a suspect is in hand."""
        if self._stopping:
            return
        busy = time.monotonic() - self.last_busy < _BUSY_SECONDS
        pause = _BUSY_POLL_SECONDS if busy else _POLL_SECONDS
        self._io.call_later(pause / len(self._queues), self._poll)
        if any(session.held for session in self._sessions.values()):
            self.last_busy = time.monotonic()
            return
        queue = self._queues[self._next % len(self._queues)]
        self._next += 1
        session = self._sessions.get(queue)
        if session is None or not session.channel.is_open:
            return

        def got(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            headers = properties.headers or {}
            key = headers.get(f"{PREFIX}routing-key", method.routing_key)
            delivery = Delivery(
                session,
                method.delivery_tag,
                str(key),
                properties,
                body,
                redelivered=method.redelivered,
            )
            session.held[method.delivery_tag] = delivery
            self.last_busy = time.monotonic()
            self._on_delivery(delivery)

        try:
            session.channel.basic_get(session.source, got)
        except pika.exceptions.DuplicateGetOkCallback:
            log.debug("the last question about %s is not answered yet", session.source)


class LaneWatch:
    """Looks now and then whether suspects wait, and reports it. For the IO thread.

    A lane's process only runs while there is something for it; whoever put a suspect there may be
    gone since.
    """

    def __init__(self, queues: Iterable[str], on_waiting: Callable[[], object]) -> None:
        self._lanes = tuple(map(names.quarantine_queue, queues))
        self._on_waiting = on_waiting
        self._lengths = Lengths(self._counted)
        self._next_look = 0.0

    def look(self, connection: Connection | None) -> None:
        """Count the suspects over ``connection``, if the last look is long enough ago."""
        if connection is None or not connection.is_open or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._lengths.ask(connection, self._lanes)

    def _counted(self, _queue: str, messages: int) -> None:
        if messages:
            self._on_waiting()
