"""FastStream's RabbitMQ broker with its defaults: a subscriber that is a plain function."""

import asyncio
import os
from collections.abc import Sequence
from itertools import islice

from faststream import FastStream
from faststream.rabbit import RabbitBroker, RabbitQueue

from tests.benchmarks import board
from tests.benchmarks.client import WINDOW, Actor, UnsupportedError

_QUEUE = RabbitQueue("noop", durable=True)

broker = RabbitBroker(os.environ["BENCH_AMQP_URL"])
app = FastStream(broker)


@broker.subscriber(_QUEUE)
def noop(job: int) -> None:
    """Note the run."""
    board.noop(job)


class Client:
    """`broker.publish`."""

    async def open(self, *, confirms: bool) -> None:
        """Connect and declare the queue; the library always waits for confirms."""
        await broker.connect()
        await broker.declare_queue(_QUEUE)

    async def send(self, actor: Actor, job: int) -> None:
        """Publish and wait for the confirm."""
        await broker.publish(job, _QUEUE, persist=True)

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Publish a window's worth together, wait for all of it, and again."""
        left = iter(jobs)
        while window := list(islice(left, WINDOW)):
            await asyncio.gather(*(broker.publish(job, _QUEUE, persist=True) for job in window))

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """FastStream has no delays of its own."""
        raise UnsupportedError

    async def close(self) -> None:
        """Disconnect."""
        await broker.stop()
