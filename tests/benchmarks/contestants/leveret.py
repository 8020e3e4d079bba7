"""Leveret as its documentation recommends: everything on.

Run as a program it lays out the broker, or with ``migrate`` the database.

The broker gets the whole table, all queues and the delay wheel included: it is what an operator
would have there, and what the broker's memory and its ticks have to carry.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import timedelta

import leveret
from leveret import topology
from leveret.settings import Settings
from tests.benchmarks import board
from tests.benchmarks.client import Actor, remaining_seconds


@leveret.actor("bench.noop", queue="default")
def noop(job: int) -> None:
    """Note the run."""
    board.noop(job)


@leveret.actor(
    "bench.flaky",
    queue="default",
    max_retries=3,
    backoff=leveret.Backoff(base=timedelta(seconds=1), cap=timedelta(seconds=1), jitter=False),
)
def flaky(job: int) -> None:
    """Fail once."""
    board.flaky(job)


_NAMES: dict[Actor, str] = {"noop": "bench.noop", "flaky": "bench.flaky", "once": "bench.noop"}


class Client:
    """`leveret.Publisher`; it always waits for confirms."""

    async def open(self, *, confirms: bool) -> None:
        """Connect."""
        self._publisher = leveret.Publisher(os.environ["BENCH_AMQP_URL"])

    async def send(self, actor: Actor, job: int) -> None:
        """Publish and wait for the confirm."""
        self._publisher.publish(_NAMES[actor], {"job": job}, queue="default").wait()

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Publish with the confirms outstanding, in a thread, where the window is kept."""
        name = _NAMES[actor]
        pairs = ((name, {"job": job}) for job in jobs)
        await asyncio.to_thread(
            self._publisher.publish_many, pairs, queue="default", once=actor == "once"
        )

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """Publish into the delay wheel, each job with what is left of its delay."""

        def publish_all() -> None:
            name = _NAMES[actor]
            receipts = [
                self._publisher.publish(
                    name, {"job": job}, queue="default", delay=remaining_seconds(due_ns)
                )
                for job, due_ns in jobs
            ]
            for receipt in receipts:
                receipt.wait()

        await asyncio.to_thread(publish_all)

    async def close(self) -> None:
        """Disconnect."""
        self._publisher.close()


def _lay_out() -> None:
    actors = {actor.actor_name: actor.queue_name for actor in (noop, flaky)}
    table = topology.build(Settings.from_env().queues, actors)
    topology.apply(os.environ["LEVERET_AMQP_URL"], table)


def _migrate() -> None:
    from leveret.store import engine, migrate  # noqa: PLC0415 - the workers need no database

    database = engine(Settings.from_env().require_database_url())
    migrate.upgrade(database)
    database.dispose()


if __name__ == "__main__":
    _migrate() if "migrate" in sys.argv else _lay_out()
