"""The jobs that Leveret does not ship."""

from __future__ import annotations

import os
import signal

import leveret

__all__ = ["beat", "crash"]


@leveret.actor("demo.beat", queue="critical")
def beat() -> str:
    """Return the second that it stands for."""
    job = leveret.current_job()
    if job is None or job.slot is None:
        raise ValueError("it is published by a schedule, which says for which moment")
    return job.slot.isoformat()


@leveret.actor("demo.crash", queue="default")
def crash() -> None:
    """End as a segmentation fault or the kernel's memory killer would: without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
