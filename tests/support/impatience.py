"""A module of actors that break the process that runs them, and make its health checks quick."""

from __future__ import annotations

import time
from typing import NoReturn

import leveret
from leveret.amqp import IOThread
from leveret.broker import get_broker
from leveret.worker import worker
from tests.support.faultjobs import journal


def io_thread() -> IOThread:
    """Return the IO thread that this worker shares with its publisher."""
    shared = get_broker().publisher._shared
    assert shared is not None
    return shared[0]


worker.STUCK_SECONDS = 0.5
worker._IO_SILENCE_SECONDS = 2.0


@leveret.actor("probe.end_io")
def end_io() -> None:
    """End the IO thread of this worker."""
    journal().write("start")

    def end() -> NoReturn:
        raise SystemExit

    io_thread().call_soon(end)


@leveret.actor("probe.block_io")
def block_io() -> None:
    """Block the IO thread of this worker."""
    journal().write("start")
    io_thread().call_soon(lambda: time.sleep(60))
