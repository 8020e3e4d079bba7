"""Wait for conditions, never for time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_until(
    predicate: Callable[[], T], *, timeout: float = 10.0, what: str = "", every: float = 0.02
) -> T:
    """Ask the predicate until its answer is true, and return that answer.

    Raises `TimeoutError`, with the last answer, when none was within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() >= deadline:
            name = what or getattr(predicate, "__qualname__", repr(predicate))
            raise TimeoutError(f"{name}: not within {timeout} s, the last answer was {answer!r}")
        time.sleep(every)
    return answer
