"""The one job that Leveret does not ship: it kills the process that runs it."""

from __future__ import annotations

import os
import signal

import leveret

__all__ = ["crash"]


@leveret.actor("demo.crash", queue="default")
def crash() -> None:
    """End as a segmentation fault or the kernel's memory killer would: without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
