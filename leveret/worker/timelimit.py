"""Time limits that cannot hurt anything but the run that they end.

A run is interrupted by an asynchronous exception in its thread. Stock Dramatiq raises it whenever
the limit is over, even when the thread is already in an after-hook or acking, where it kills the
thread and loses the outcome. Here a run and the watchdog race for the run's entry in `_armed`: who
takes it out has decided. If the run was first, no exception will ever come. If the watchdog was
first, the run waits until the exception has been set, and then either receives it, still inside
`limited`, or drains it before it goes on.

To drain is to be given another exception, which takes the first one's place, and to receive that.
CPython has a call that takes an exception back; but up to 3.12 the interpreter then goes on looking
for it, in every function and every loop of every thread, until some thread receives one. It is slow
from then on, and stands still where a function is traced.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from dramatiq.middleware import Interrupt, TimeLimitExceeded

__all__ = ["TimeLimits"]

T = TypeVar("T")

_POLL_SECONDS = 0.05


class _Run:
    __slots__ = ("deadline", "interrupted", "thread")

    def __init__(self, seconds: float) -> None:
        self.thread = threading.get_ident()
        self.deadline = time.monotonic() + seconds
        self.interrupted = False  # the exception has been set


class TimeLimits:
    """Ends runs that take too long, to a twentieth of a second. Thread-safe.

    What blocks outside of Python (a system call, an extension) is interrupted when it returns.
    """

    def __init__(self) -> None:
        self._armed: dict[int, _Run] = {}
        self._tokens = itertools.count()
        self._closed = threading.Event()
        thread = threading.Thread(target=self._watch, name="leveret-time-limits", daemon=True)
        thread.start()

    def limited(self, seconds: float | None, run: Callable[[], T]) -> T:
        """Return ``run()``; raises `TimeLimitExceeded` in it when it takes longer than ``seconds``.

        A run that had returned before the exception reached it has returned: its value counts.
        """
        if seconds is None:
            return run()
        token, entry = next(self._tokens), _Run(seconds)
        finished = False
        self._armed[token] = entry
        try:
            try:
                value = run()
                finished = True
            finally:
                self._disarm(token, entry)
        except Interrupt:
            # It may have come after the run, or within `_disarm`. There is never a second one.
            self._disarm(token, entry)
            if finished:
                return value
            raise
        return value

    def close(self) -> None:
        """End the watchdog; limits are not enforced any more."""
        self._closed.set()

    def _disarm(self, token: int, entry: _Run) -> None:
        if self._armed.pop(token, None) is None:
            while not entry.interrupted:
                time.sleep(0.0005)
            _drain(entry.thread)

    def _watch(self) -> None:
        while not self._closed.wait(_POLL_SECONDS):
            now = time.monotonic()
            for token, entry in list(self._armed.items()):
                if entry.deadline <= now and self._armed.pop(token, None) is not None:
                    _set_async_exception(entry.thread, TimeLimitExceeded)
                    entry.interrupted = True


class _Drained(BaseException):
    """What takes the place of an exception that nobody is to receive any more."""


def _drain(thread: int) -> None:
    """Leave no exception pending in the calling thread, which is ``thread``."""
    try:
        while True:
            _set_async_exception(thread, _Drained)
    except _Drained:
        return


def _set_async_exception(thread: int, error: type[BaseException]) -> None:
    value = ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
