"""Taking deliveries in: one consuming connection, a channel for each queue.

A queue has a channel of its own, so that what closes one (a deleted queue, the broker's consumer
timeout) gives back the deliveries of that queue alone.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from leveret import names
from leveret.amqp import IOThread, Link
from leveret.worker.delivery import Delivery, Session

if TYPE_CHECKING:
    from leveret.amqp.connection import Connection

__all__ = ["Intake"]

log = logging.getLogger("leveret.worker")

_FIRST_DELAY = 0.25
_LONGEST_DELAY = 5.0
_REMEMBERED = 10_000


Prepare = Callable[["Connection", Callable[[], object]], object]


def at_once(_connection: Connection, begin: Callable[[], object]) -> None:
    """Begin without further ado."""
    begin()


class Intake:
    """Consumes work queues and hands every delivery to ``on_delivery``. For the IO thread.

    Lost connections, closed channels and deleted queues are come back to with backoff. A session
    that ends is reported to ``on_over`` after it is marked. ``prepare(connection, begin)`` is
    called with every new connection, and consuming begins when it calls ``begin()``.
    """

    def __init__(
        self,
        io: IOThread,
        url: str,
        *,
        name: str,
        queues: Iterable[str],
        prefetch: int,
        on_delivery: Callable[[Delivery], object],
        on_over: Callable[[Session], object],
        prepare: Prepare | None = None,
    ) -> None:
        self._io = io
        self._link = Link(io, url, name=name, on_up=self._up, on_down=self._down)
        self._queues = tuple(queues)
        self._prefetch = prefetch
        self._on_delivery = on_delivery
        self._on_over = on_over
        self._prepare = prepare or at_once
        self._connection: Connection | None = None
        self._sessions: dict[str, Session] = {}
        self._tags: dict[str, str] = {}
        self._failures: dict[str, int] = {}
        self._stopping = False
        self._interrupted: OrderedDict[str, int] = OrderedDict()

    @property
    def consuming(self) -> dict[str, bool]:
        """Tell of each queue whether it is being consumed."""
        return {queue: queue in self._tags for queue in self._queues}

    @property
    def connection(self) -> Connection | None:
        """The connection, while there is one."""
        return self._connection

    def open(self) -> None:
        """Start consuming."""
        self._link.open()

    def stop(self) -> None:
        """Stop consuming; deliveries that are held can still be settled."""
        self._stopping = True
        for queue, tag in list(self._tags.items()):
            session = self._sessions.get(queue)
            if session is not None and session.channel.is_open:
                session.channel.basic_cancel(tag)
        self._tags.clear()

    def close(self, on_closed: Callable[[], object] | None = None) -> None:
        """Disconnect; what is not settled goes back to its queue."""
        self._stopping = True
        self._link.close(on_closed)

    def set_prefetch(self, prefetch: int) -> None:
        """Subscribe anew with another prefetch; what is held stays held."""
        if prefetch == self._prefetch or self._stopping:
            return
        self._prefetch = prefetch
        for queue, session in self._sessions.items():
            tag = self._tags.pop(queue, None)
            if tag is not None and session.channel.is_open:
                session.channel.basic_cancel(tag, callback=self._resubscribe(session))

    def charged(self, delivery: Delivery) -> int:
        """Count the deliveries of a message that ended with the death of whoever had it.

        The broker counts every unsuccessful delivery. Those that ended because this process lost
        its connection, and lived, are not the message's fault and are taken off.
        """
        count = delivery.unsuccessful
        survived = self._interrupted.get(delivery.label, 0) if count else 0
        return max(0, count - survived) + delivery.inherited_kills

    # ----------------------------------------------------------------------------- the callbacks

    def _up(self, connection: Connection) -> None:
        self._connection = connection
        self._prepare(connection, lambda: self._begin(connection))

    def _begin(self, connection: Connection) -> None:
        if connection is self._connection:
            for queue in self._queues:
                self._open_channel(queue)

    def _down(self, _reason: str) -> None:
        self._connection = None
        for session in list(self._sessions.values()):
            self._over(session)

    def _open_channel(self, queue: str) -> None:
        connection = self._connection
        if self._stopping or connection is None or not connection.is_open:
            return
        connection.channel(on_open_callback=lambda channel: self._channel_open(queue, channel))

    def _channel_open(self, queue: str, channel: Any) -> None:
        session = Session(channel, queue, names.work_queue(queue))
        self._sessions[queue] = session
        channel.add_on_close_callback(lambda _channel, error: self._closed(session, error))
        channel.add_on_cancel_callback(lambda _frame: self._cancelled(session))
        self._subscribe(session)

    def _resubscribe(self, session: Session) -> Callable[[Any], None]:
        def subscribe(_frame: Any) -> None:
            if not session.is_over and not self._stopping:
                self._subscribe(session)

        return subscribe

    def _subscribe(self, session: Session) -> None:
        channel = session.channel

        def deliver(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            delivery = Delivery(
                session,
                method.delivery_tag,
                method.routing_key,
                properties,
                body,
                redelivered=method.redelivered,
            )
            session.held[method.delivery_tag] = delivery
            self._on_delivery(delivery)

        def consuming(_frame: Any) -> None:
            if self._failures.pop(session.queue, 0):
                log.warning("consuming queue %s again", session.source)

        channel.basic_qos(prefetch_count=self._prefetch)
        self._tags[session.queue] = channel.basic_consume(
            session.source, deliver, callback=consuming
        )

    def _cancelled(self, session: Session) -> None:
        """Come back to a queue that was deleted, or whose node is gone."""
        if session.channel.is_open:
            self._over(session)
            session.channel.close(0, "the subscription was cancelled")

    def _closed(self, session: Session, error: Exception) -> None:
        if not session.is_over:
            self._over(session)
        if self._stopping or self._connection is None or not self._connection.is_open:
            return
        failures = self._failures.get(session.queue, 0)
        self._failures[session.queue] = failures + 1
        if failures == 0:
            log.warning(
                "not consuming queue %s (%s); trying until it is back", session.source, error
            )
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures, 8))
        queue = session.queue
        self._io.call_later(random.uniform(bound / 2, bound), lambda: self._open_channel(queue))  # noqa: S311

    def _over(self, session: Session) -> None:
        session.is_over = True
        for delivery in session.held.values():
            label = delivery.label
            self._interrupted[label] = self._interrupted.pop(label, 0) + 1
        while len(self._interrupted) > _REMEMBERED:
            self._interrupted.popitem(last=False)
        if self._sessions.get(session.queue) is session:
            del self._sessions[session.queue]
            self._tags.pop(session.queue, None)
        self._on_over(session)
