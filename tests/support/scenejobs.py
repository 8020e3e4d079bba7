"""Actors of a shop whose arguments say what becomes of a job: for dashboards, which show it all."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta

import leveret

SOON = leveret.Backoff(base=timedelta(seconds=0.5), cap=timedelta(seconds=20))


def _act(seconds: float, fate: str, until: float = 0.0) -> None:
    time.sleep(seconds)
    job = leveret.current_job()
    assert job is not None
    match fate:
        case "fine":
            return
        case "flaky" if job.attempt > 1:
            return
        case "flaky" | "hopeless":
            raise ConnectionError("the other side does not answer")
        case "refused":
            raise leveret.Dead("there is no such customer")
        case "snooze" if time.time() < until:
            raise leveret.Snooze(1.0)
        case "snooze":
            return
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            raise ValueError(f"nobody knows the fate {fate}")


@leveret.actor("order.charge", queue="critical", max_retries=2, backoff=SOON)
def charge(seconds: float = 0.01, fate: str = "fine") -> None:
    """Take a little, and hardly ever fail."""
    _act(seconds, fate)


@leveret.actor("email.send", max_retries=2, backoff=SOON)
def send(seconds: float = 0.02, fate: str = "fine") -> None:
    """Take longer now and then."""
    _act(seconds, fate)


@leveret.actor("webhook.deliver", max_retries=2, backoff=SOON)
def deliver(seconds: float = 0.03, fate: str = "fine", until: float = 0.0) -> None:
    """Depend on others."""
    _act(seconds, fate, until)


@leveret.actor("image.resize", queue="bulk", max_retries=2, backoff=SOON)
def resize(seconds: float = 0.2, fate: str = "fine") -> None:
    """Work."""
    _act(seconds, fate)


@leveret.actor("report.build", queue="bulk", max_retries=1, backoff=SOON)
def build(seconds: float = 1.0, fate: str = "fine") -> None:
    """Work for long."""
    _act(seconds, fate)


@leveret.actor("stock.count", queue="scheduled", max_retries=1, backoff=SOON)
def count(seconds: float = 0.1, fate: str = "fine") -> None:
    """Be scheduled."""
    _act(seconds, fate)
