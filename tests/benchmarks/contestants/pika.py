"""Bare pika: what is left when there is no job system. Run as a program it is the worker."""

import os
import signal
from collections import deque
from collections.abc import Sequence
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.adapters.select_connection import SelectConnection

from tests.benchmarks import board
from tests.benchmarks.client import WINDOW, Actor, UnsupportedError

_QUEUE = "noop"
_PREFETCH = 100
_PROPERTIES = pika.BasicProperties(delivery_mode=2, content_type="application/json")


def _parameters() -> pika.URLParameters:
    return pika.URLParameters(os.environ["BENCH_AMQP_URL"])


class _Pipeline:
    """Publishes with at most `WINDOW` confirms outstanding, on one connection and one thread."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self._left = deque(bodies)
        self._sent = self._confirmed = 0
        self._total = len(bodies)
        self._connection = SelectConnection(
            _parameters(),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
        )

    def run(self) -> None:
        self._connection.ioloop.start()

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.confirm_delivery(self._confirm, callback=lambda _frame: self._fill())

    def _confirm(self, frame: Any) -> None:
        method = frame.method
        if not isinstance(method, pika.spec.Basic.Ack):
            raise TypeError(f"the broker refused a message: {method}")
        # Tags count from 1, and one queue confirms them in order, with `multiple` or without.
        self._confirmed = max(self._confirmed, method.delivery_tag)
        if self._confirmed == self._total:
            self._connection.close()
            self._connection.ioloop.stop()
        else:
            self._fill()

    def _fill(self) -> None:
        while self._left and self._sent - self._confirmed < WINDOW:
            self._channel.basic_publish("", _QUEUE, self._left.popleft(), _PROPERTIES)
            self._sent += 1


class Client:
    """`basic_publish` to the default exchange, of persistent messages, into a durable queue."""

    async def open(self, *, confirms: bool) -> None:
        """Connect and declare the queue."""
        self._connection: BlockingConnection = BlockingConnection(_parameters())
        self._channel: BlockingChannel = self._connection.channel()
        self._channel.queue_declare(_QUEUE, durable=True)
        if confirms:
            self._channel.confirm_delivery()

    async def send(self, actor: Actor, job: int) -> None:
        """Publish."""
        self._channel.basic_publish("", _QUEUE, b"%d" % job, _PROPERTIES)

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Publish with the confirms outstanding."""
        _Pipeline([b"%d" % job for job in jobs]).run()

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """There are no delays in AMQP."""
        raise UnsupportedError

    async def close(self) -> None:
        """Disconnect."""
        self._connection.close()


def _consume() -> None:
    def run(channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        board.noop(int(body))
        channel.basic_ack(method.delivery_tag)

    def opened(channel: Any) -> None:
        # On one channel the broker handles them in this order; none needs waiting for.
        channel.queue_declare(_QUEUE, durable=True)
        channel.basic_qos(prefetch_count=_PREFETCH)
        channel.basic_consume(_QUEUE, run)

    connection = SelectConnection(
        _parameters(),
        on_open_callback=lambda connection: connection.channel(on_open_callback=opened),
    )
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    connection.ioloop.start()


if __name__ == "__main__":
    _consume()
