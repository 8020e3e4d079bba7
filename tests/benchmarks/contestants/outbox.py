"""Leveret's outbox: jobs are committed to a database, and a relay publishes them."""

import os
import time
from collections.abc import Sequence

import psycopg

from leveret import outbox
from tests.benchmarks.client import Actor, UnsupportedError

_NAMES: dict[Actor, str] = {"noop": "bench.noop", "flaky": "bench.flaky"}


class Client:
    """`leveret.outbox` on a connection of psycopg."""

    async def open(self, *, confirms: bool) -> None:
        """Connect."""
        self._connection = psycopg.connect(os.environ["LEVERET_DATABASE_URL"])

    async def send(self, actor: Actor, job: int) -> None:
        """Write one job and commit."""
        await self.commit(actor, job)

    async def commit(self, actor: Actor, job: int) -> int:
        """Write one job and commit; return when the commit began."""
        outbox.enqueue(self._connection, _NAMES[actor], {"job": job}, queue="default")
        began = time.monotonic_ns()
        self._connection.commit()
        return began

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Write all in one transaction."""
        outbox.enqueue_many(
            self._connection, ((_NAMES[actor], {"job": job}) for job in jobs), queue="default"
        )
        self._connection.commit()

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """Refuse: nothing measures it."""
        raise UnsupportedError

    async def close(self) -> None:
        """Disconnect."""
        self._connection.close()
