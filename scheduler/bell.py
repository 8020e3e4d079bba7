"""A wait that others can end, and that no clock can prolong.

What `threading` waits with computes the moment at which to wake, by a clock: when that clock is set
back meanwhile, or counts no seconds while the machine is suspended, the wait lasts longer than was
asked for. Here the kernel is asked for a number of seconds, and for no more than one at a time:
whoever waits looks around at least that often.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress

__all__ = ["LONGEST_SECONDS", "Bell"]

#: No wait is longer; who wants to wait longer waits again.
LONGEST_SECONDS = 1.0


class Bell:
    """One thread waits; any thread rings, and a signal's handler may, too."""

    def __init__(self) -> None:
        self._heard, self._cord = os.pipe()
        os.set_blocking(self._heard, False)
        os.set_blocking(self._cord, False)

    def ring(self) -> None:
        """End the wait that is, or else the next."""
        with suppress(BlockingIOError):  # a pipe that is full has been rung often enough
            os.write(self._cord, b"\0")

    def wait(self, seconds: float, *also: int) -> bool:
        """Wait until it is rung, at most so many seconds and never more than one.

        Other file descriptors that become readable end it as well. Return whether something did.
        """
        timeout = min(max(seconds, 0.0), LONGEST_SECONDS)
        readable, _, _ = select.select([self._heard, *also], [], [], timeout)
        if self._heard in readable:
            with suppress(BlockingIOError):
                os.read(self._heard, 4096)
        return bool(readable)

    def __del__(self) -> None:
        """Give the pipe back, when nobody is left who could ring or wait."""
        os.close(self._heard)
        os.close(self._cord)
