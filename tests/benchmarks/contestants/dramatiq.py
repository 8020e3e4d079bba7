"""Stock Dramatiq: its own broker, its own command line, its default middleware."""

import os
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.benchmarks import board
from tests.benchmarks.client import Actor, UnsupportedError, remaining_ms

broker = RabbitmqBroker(url=os.environ["BENCH_AMQP_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(job: int) -> None:
    """Note the run."""
    board.noop(job)


@dramatiq.actor(max_retries=3, min_backoff=1000, max_backoff=1000)
def flaky(job: int) -> None:
    """Fail once. With equal bounds Dramatiq's jitter makes the pause 0.5 to 1 second."""
    board.flaky(job)


_ACTORS: dict[Actor, dramatiq.Actor[[int], None]] = {"noop": noop, "flaky": flaky}


class Client:
    """`actor.send`, with `confirm_delivery` or without."""

    async def open(self, *, confirms: bool) -> None:
        """Choose whether to wait for confirms; the connection is made at the first send."""
        # Read when the channel is made, so this is `RabbitmqBroker(confirm_delivery=...)`.
        broker.confirm_delivery = confirms

    async def send(self, actor: Actor, job: int) -> None:
        """Send."""
        _ACTORS[actor].send(job)

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Dramatiq has no pipelined publishing."""
        raise UnsupportedError

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """Send with a delay in milliseconds."""
        for job, due_ns in jobs:
            _ACTORS[actor].send_with_options(args=(job,), delay=remaining_ms(due_ns))

    async def close(self) -> None:
        """Disconnect."""
        broker.close()
