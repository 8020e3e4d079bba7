"""What a contestant's publishing side can do, one small protocol for all.

All methods are coroutines so that one driver serves both kinds of library. For a blocking library
they simply never suspend, which costs a tenth of a microsecond per call.
"""

import time
from collections.abc import Sequence
from typing import Literal, Protocol

#: The two actors that every contestant declares; their bodies are in `board`. `once` is `noop`,
#: published to have its effect once.
Actor = Literal["noop", "flaky", "once"]

#: How many unconfirmed messages a pipelined publisher of ours may have out at once.
WINDOW = 1000


class Client(Protocol):
    """The publishing side of one contestant, used by one process for one operation."""

    async def open(self, *, confirms: bool) -> None:
        """Connect, and declare what the library declares; wait for confirms or do not."""

    async def send(self, actor: Actor, job: int) -> None:
        """Publish one job; return when the library says that it is published."""

    async def send_many(self, actor: Actor, jobs: Sequence[int]) -> None:
        """Publish all jobs in the library's fastest confirmed way; return when all are."""

    async def send_later(self, actor: Actor, jobs: Sequence[tuple[int, int]]) -> None:
        """Publish each job so that it runs at its time (`CLOCK_MONOTONIC`, nanoseconds)."""

    async def close(self) -> None:
        """Flush and disconnect."""


class Committing(Client, Protocol):
    """The same for one that writes jobs into a database's transaction."""

    async def commit(self, actor: Actor, job: int) -> int:
        """Write one job and commit; return when the commit began (`CLOCK_MONOTONIC`, ns)."""


class UnsupportedError(NotImplementedError):
    """The library has no such operation; the contestants' table says so too."""


def remaining_seconds(due_ns: int) -> float:
    """Return the seconds from now until `due_ns`, never less than 0."""
    return max(due_ns - time.monotonic_ns(), 0) / 1e9


def remaining_ms(due_ns: int) -> int:
    """Return the whole milliseconds from now until `due_ns`, rounded up so as not to be early."""
    return max(-(-(due_ns - time.monotonic_ns()) // 1_000_000), 0)
