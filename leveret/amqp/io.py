"""A thread that runs pika's IO loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pika.adapters.select_connection import IOLoop

__all__ = ["IOThread"]


class IOThread:
    """Runs callbacks and connections on one thread of its own.

    Everything that touches a connection happens on this thread, so what lives here needs no locks.
    `call_soon` may be used from any thread, the rest only from the thread itself.
    """

    def __init__(self, name: str) -> None:
        self.loop = IOLoop()
        self._stopped = False
        #: When the thread last showed that it is alive (`time.monotonic`).
        self.last_tick = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` on the thread, as soon as it can. Thread-safe."""
        self.loop.add_callback_threadsafe(callback)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any:
        """Run ``callback`` in ``seconds``; the handle returned is for `cancel`."""
        return self.loop.call_later(seconds, callback)

    def cancel(self, handle: Any) -> None:
        """Forget a callback that `call_later` promised."""
        self.loop.remove_timeout(handle)

    def run(self, callback: Callable[[], object], timeout: float = 10.0) -> bool:
        """Run ``callback`` on the thread and wait until it has run; tell whether it did in time."""
        done = threading.Event()

        def call() -> None:
            try:
                callback()
            finally:
                done.set()

        self.call_soon(call)
        return done.wait(timeout)

    def call_later_threadsafe(self, seconds: float, callback: Callable[[], object]) -> None:
        """Run ``callback`` in ``seconds``. Thread-safe."""
        self.call_soon(lambda: self.loop.call_later(seconds, callback))

    def join(self, timeout: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread. Thread-safe, and harmless when it has ended already."""
        if not self._stopped:
            self._stopped = True
            self.call_soon(self.loop.stop)
            if threading.current_thread() is not self._thread:
                self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        self._tick()
        try:
            self.loop.start()
        finally:
            self.loop.close()

    def _tick(self) -> None:
        self.last_tick = time.monotonic()
        self.loop.call_later(0.5, self._tick)
