"""The process that publishes for one contestant: `python -m tests.benchmarks.driver MODULE`.

A new interpreter for each run, so that no library works beside another one's threads, event loop
or garbage. It reads one order as JSON from standard input, and prints one JSON line: what it
measured, with its own clock, from the first call to the last return.
"""

import asyncio
import importlib
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.benchmarks.client import Actor, Client, Committing

#: Publishes before the clock starts: connections, caches and lazily imported code.
WARM_UP = 100


async def publish(
    client: Client, *, jobs: int, warm_up: int, confirms: bool, pipelined: bool
) -> float:
    """Publish `jobs` jobs one at a time or pipelined; return the seconds that it took."""
    await client.open(confirms=confirms)
    for job in range(warm_up):
        await client.send("noop", job)
    numbers = range(warm_up, warm_up + jobs)
    start = time.perf_counter()
    if pipelined:
        await client.send_many("noop", numbers)
    else:
        for job in numbers:
            await client.send("noop", job)
    seconds = time.perf_counter() - start
    await client.close()
    return seconds


async def fill(
    client: Client, *, actor: Actor, first: int, jobs: int, confirms: bool, pipelined: bool
) -> None:
    """Publish jobs as fast as this library can."""
    await client.open(confirms=confirms)
    numbers = range(first, first + jobs)
    if pipelined:
        await client.send_many(actor, numbers)
    else:
        for job in numbers:
            await client.send(actor, job)
    await client.close()


async def pace(
    client: Client, *, first: int, jobs: int, low: float, high: float, seed: int, confirms: bool
) -> list[int]:
    """Publish one job at a time with random pauses; return when each was handed over, in ns."""
    pauses = random.Random(seed)
    await client.open(confirms=confirms)
    sent = []
    for job in range(first, first + jobs):
        await asyncio.sleep(pauses.uniform(low, high))
        sent.append(time.monotonic_ns())
        await client.send("noop", job)
    await client.close()
    return sent


async def commit(
    client: Committing, *, first: int, jobs: int, low: float, high: float, seed: int
) -> list[int]:
    """Commit one job at a time with random pauses; return when each commit began, in ns."""
    pauses = random.Random(seed)
    await client.open(confirms=True)
    began = []
    for job in range(first, first + jobs):
        await asyncio.sleep(pauses.uniform(low, high))
        began.append(await client.commit("noop", job))
    await client.close()
    return began


async def later(client: Client, *, jobs: Sequence[tuple[int, int]], confirms: bool) -> float:
    """Publish jobs that are due at given times; return the seconds that publishing took."""
    await client.open(confirms=confirms)
    start = time.perf_counter()
    await client.send_later("noop", jobs)
    await client.close()
    return time.perf_counter() - start


OPERATIONS = {
    "publish": publish,
    "fill": fill,
    "pace": pace,
    "commit": commit,
    "later": later,
}


def main() -> None:
    """Carry out one order."""
    order: dict[str, Any] = json.load(sys.stdin)
    client: Client = importlib.import_module(sys.argv[1]).Client()
    operation: Any = OPERATIONS[order["operation"]]
    print(json.dumps(asyncio.run(operation(client, **order["arguments"]))))


if __name__ == "__main__":
    main()
