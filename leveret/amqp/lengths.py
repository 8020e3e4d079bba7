"""Asking the broker how many messages of a queue wait.

A question is a passive declaration. One that the broker refuses (the queue is missing; RabbitMQ
4.2.6 and 4.3.0 want the right to configure it) closes its channel, so questions have one of their
own, where that costs nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leveret.amqp.connection import Connection

__all__ = ["Lengths"]

log = logging.getLogger("leveret.amqp")


class Lengths:
    """Asks how many messages of queues are delivered to nobody. For the IO thread.

    ``tell(queue, messages)`` is called for each answer. A question has none when the broker refuses
    it, or one before it, or the connection is lost first; it can be asked again. Refusals are one
    line in the log until there is an answer.
    """

    def __init__(self, tell: Callable[[str, int], object]) -> None:
        self._tell = tell
        self._connection: Connection | None = None
        self._channel: Any = None
        self._refused = False

    def ask(self, connection: Connection, queues: Iterable[str]) -> None:
        """Ask over ``connection``, on a channel that the first question opens."""
        if connection is not self._connection:
            self._connection, self._channel = connection, None
            connection.channel(on_open_callback=lambda channel: self._opened(channel, queues))
        elif self._channel is not None:
            self._ask(queues)

    def _opened(self, channel: Any, queues: Iterable[str]) -> None:
        if channel.connection is self._connection:
            self._channel = channel
            channel.add_on_close_callback(self._closed)
            self._ask(queues)

    def _ask(self, queues: Iterable[str]) -> None:
        for queue in queues:
            self._channel.queue_declare(queue, passive=True, callback=self._told)

    def _told(self, frame: Any) -> None:
        self._refused = False
        self._tell(frame.method.queue, frame.method.message_count)

    def _closed(self, channel: Any, error: Exception) -> None:
        if channel is not self._channel:
            return
        self._connection = self._channel = None
        if channel.connection.is_open and not self._refused:
            self._refused = True
            log.warning("the broker does not tell how many messages wait: %s", error)
