"""Celery with its defaults on a thread pool: no results, and no limit but the pool's."""

import os
from collections.abc import Sequence

import celery  # type: ignore[import-untyped]

from tests.benchmarks import board
from tests.benchmarks.client import Actor, UnsupportedError, remaining_seconds

app = celery.Celery("bench", broker=os.environ["BENCH_AMQP_URL"])
app.conf.task_ignore_result = True


@app.task(name="noop")  # type: ignore[untyped-decorator]
def noop(job: int) -> None:
    """Note the run."""
    board.noop(job)


@app.task(  # type: ignore[untyped-decorator]
    name="flaky",
    autoretry_for=(board.FailedOnceError,),
    default_retry_delay=1,
    max_retries=3,
)
def flaky(job: int) -> None:
    """Fail once."""
    board.flaky(job)


_TASKS = {"noop": noop, "flaky": flaky}


class Client:
    """`task.apply_async`, with `confirm_publish` or without."""

    async def open(self, *, confirms: bool) -> None:
        """Choose whether to wait for confirms; the connection is made at the first send."""
        app.conf.broker_transport_options = {"confirm_publish": confirms}

    async def send(self, actor: Actor, job: int) -> None:
        """Send."""
        _TASKS[actor].apply_async((job,))

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Celery has no pipelined publishing."""
        raise UnsupportedError

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """Send with a countdown."""
        for job, due_ns in jobs:
            _TASKS[actor].apply_async((job,), countdown=remaining_seconds(due_ns))

    async def close(self) -> None:
        """Disconnect."""
        app.close()
