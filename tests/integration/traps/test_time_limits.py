"""Traps of stock Dramatiq 2.2.1: an exception that comes at any moment."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import leveret
from tests.support.hooks import Failing
from tests.support.workers import AT_ONCE


def test_time_limits_that_end_with_the_run_lose_no_outcome(worker):
    """Stock's late exception lands in a hook or the ack: a dead thread, or a lost message.

    The runs last about as long as the limit, so that the exception comes at every possible place.
    """
    worker.broker.add_middleware(Failing("none", None))
    jobs = 60

    @worker.actor("work.spin", time_limit=timedelta(milliseconds=60), max_retries=0)
    def spin(n: int):
        end = time.monotonic() + 0.02 + n / jobs * 0.12
        while time.monotonic() < end:
            pass

    worker.start(threads=2)
    ids = [worker.send("work.spin", {"n": n}) for n in range(jobs)]
    worker.settled(timeout=60)
    ends = []
    for job in ids:
        events = {r["event"] for r in worker.records(job)} & {"succeeded", "dead"}
        assert len(events) == 1, job
        ends += events
    assert set(ends) == {"succeeded", "dead"}
    assert worker.worker.health().faults == ()
    for letter in worker.letters(ends.count("dead")):
        assert "time limit of 0.06 s" in letter.headers["x-leveret-error"]


def test_an_async_actor_is_interrupted_retried_and_awaited(worker):
    """Coroutines have time limits, attempts and results like any other actor."""

    @worker.actor("work.sleep", time_limit=timedelta(milliseconds=300), backoff=AT_ONCE)
    async def sleep(n: int):
        attempt = leveret.current_job().attempt
        worker.notes.append((attempt, asyncio.get_running_loop().is_running()))
        if attempt == 1:
            await asyncio.sleep(30)
        await asyncio.sleep(0.001)
        return n * 2

    worker.start(threads=2)
    job = worker.send("work.sleep", {"n": 21})
    records = worker.records(job, "retrying", "succeeded")
    assert records[-1]["result"] == 42
    assert worker.notes == [(1, True), (2, True)]
    (retrying,) = [r for r in records if r["event"] == "retrying"]
    assert retrying["error"]["type"].endswith("TimeLimitExceeded")
