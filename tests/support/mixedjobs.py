"""Actors with mixed ends, for a system in which everything dies now and then."""

from __future__ import annotations

import time
from datetime import timedelta

import leveret

QUICK = leveret.Backoff(base=timedelta(seconds=0.3), jitter=False)


@leveret.actor("mix.fine")
def fine(n: int) -> int:
    """Succeed at once."""
    return n


@leveret.actor("mix.slow", queue="bulk")
def slow(n: int) -> int:
    """Take long enough to be announced as running."""
    time.sleep(0.3)
    return n


@leveret.actor("mix.flaky", max_retries=5, backoff=QUICK)
def flaky(n: int) -> int:
    """Fail the first time."""
    job = leveret.current_job()
    if job is not None and job.attempt == 1:
        raise ConnectionError(f"the other side of {n} is away")
    return n


@leveret.actor("mix.doomed")
def doomed(n: int) -> None:
    """Fail for good."""
    raise leveret.Dead(f"there is no {n}")


@leveret.actor("mix.exhausted", max_retries=1, backoff=QUICK)
def exhausted(n: int) -> None:
    """Fail every time."""
    raise ValueError(f"{n} is wrong")


@leveret.actor("mix.stormy", max_retries=20, backoff=QUICK)
def stormy(n: int) -> None:
    """Fail every time, and be tried many times."""
    raise ConnectionError(f"the other side of {n} is away")


@leveret.actor("mix.hang")
def hang(n: int) -> int:
    """Take longer than any test."""
    time.sleep(500)
    return n


ACTORS = {
    "mix.fine": "default",
    "mix.slow": "bulk",
    "mix.flaky": "default",
    "mix.doomed": "default",
    "mix.exhausted": "default",
    "mix.hang": "default",
    "mix.stormy": "default",
}
