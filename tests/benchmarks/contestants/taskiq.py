"""taskiq on aio-pika with its defaults: a quorum queue, confirms, a prefetch of ten."""

import asyncio
import os
from collections.abc import Sequence
from itertools import islice

from taskiq import SmartRetryMiddleware
from taskiq_aio_pika import AioPikaBroker, Queue

from tests.benchmarks import board
from tests.benchmarks.client import WINDOW, Actor, UnsupportedError

broker = AioPikaBroker(
    os.environ["BENCH_AMQP_URL"], delay_queue=Queue(name="taskiq.delay")
).with_middlewares(SmartRetryMiddleware(default_retry_count=3, default_delay=1))


@broker.task(task_name="noop")
def noop(job: int) -> None:
    """Note the run."""
    board.noop(job)


@broker.task(task_name="flaky", retry_on_error=True)
def flaky(job: int) -> None:
    """Fail once."""
    board.flaky(job)


_TASKS = {"noop": noop, "flaky": flaky}


class Client:
    """`task.kiq`."""

    async def open(self, *, confirms: bool) -> None:
        """Connect; the library always waits for confirms."""
        await broker.startup()

    async def send(self, actor: Actor, job: int) -> None:
        """Send and wait for the confirm."""
        await _TASKS[actor].kiq(job)

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Send a window's worth together, wait for all of it, and again."""
        task, left = _TASKS[actor], iter(jobs)
        while window := list(islice(left, WINDOW)):
            await asyncio.gather(*(task.kiq(job) for job in window))

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """Arbitrary times need a plugin of the broker: its delay queue runs in order."""
        raise UnsupportedError

    async def close(self) -> None:
        """Disconnect."""
        await broker.shutdown()
