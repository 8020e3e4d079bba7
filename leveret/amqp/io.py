"""A thread that runs pika's IO loop, and lends it.

The loop is run by whoever holds it: normally the thread of its own, but a caller that has nothing
to do but to wait for an answer may run it meanwhile (`IOThread.drive`). That saves the two thread
switches of a question and its answer, which is most of what a client adds to the broker's own time.

The thread gives the loop up when a guest asks for it, and stays away for a moment after the guest
has left, since who waits once mostly waits again. A callback that is due in that moment, or another
waiter, calls it back at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from pika.adapters.select_connection import IOLoop

__all__ = ["IOThread"]

log = logging.getLogger("leveret.amqp")

#: How long the thread stays away after a guest has left.
_AWAY_SECONDS = 0.005


class IOThread:
    """Runs callbacks and connections, one at a time, on one thread or on that of a guest.

    Everything that touches a connection happens on the loop, so what lives there needs no locks.
    `call_soon`, `drive`, `run` and `stop` may be used from any thread, the rest on the loop.
    """

    def __init__(self, name: str) -> None:
        self.loop = IOLoop()
        self.loop.activate_poller()
        self._holding = threading.Lock()  # held by whoever runs the loop
        self._holder: int | None = None  # its thread
        self._guest = threading.Lock()  # one guest at a time
        self._guest_wants_it = False
        self._guest_left_at = 0.0
        self._called_back = threading.Event()
        self._stopped = False
        #: Brokers that cannot be reached, and since when (`time.monotonic`); kept by the links.
        self.outages: dict[str, float] = {}
        #: When the loop last showed that it is alive (`time.monotonic`).
        self.last_tick = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run ``callback`` on the loop, as soon as it can. Thread-safe."""
        self.loop.add_callback_threadsafe(callback)
        if self._guest_left_at:
            self.call_back()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any:
        """Run ``callback`` in ``seconds``; the handle returned is for `cancel`."""
        return self.loop.call_later(seconds, callback)

    def cancel(self, handle: Any) -> None:
        """Forget a callback that `call_later` promised."""
        self.loop.remove_timeout(handle)

    def run(self, callback: Callable[[], object], timeout: float = 10.0) -> bool:
        """Run ``callback`` on the loop and wait until it has run; tell whether it did in time."""
        done = threading.Event()

        def call() -> None:
            try:
                callback()
            finally:
                done.set()

        self.call_soon(call)
        return done.wait(timeout)

    def drive(self, until: Callable[[], bool], timeout: float | None) -> None:
        """Run the loop on the calling thread until ``until()``, at most ``timeout`` seconds.

        Returns at once, having done nothing, when another guest is there already. Callbacks then
        run on this thread. Thread-safe.
        """
        if self._stopped or self.is_current or not self._guest.acquire(blocking=False):
            return
        self._guest_wants_it = True
        try:
            if not self._holding.acquire(blocking=False):
                self.loop.add_callback_threadsafe(_nothing)  # the thread is polling: wake it
                self._holding.acquire()
            try:
                self._holder = threading.get_ident()
                end = None if timeout is None else time.monotonic() + timeout
                while not until() and not self._stopped:
                    if end is not None and time.monotonic() >= end:
                        return
                    self._turn()
            finally:
                self._holder = None
                self._holding.release()
        finally:
            self._guest_left_at = time.monotonic()
            self._guest_wants_it = False
            self._guest.release()

    def call_back(self) -> None:
        """Have the thread take the loop again now; for a guest that leaves work behind."""
        self._guest_left_at = 0.0
        self._called_back.set()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread. Thread-safe, and harmless when it has ended already."""
        if not self._stopped:
            self._stopped = True
            self.call_back()
            self.loop.add_callback_threadsafe(_nothing)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the loop."""
        return self._holder == threading.get_ident()

    def _run(self) -> None:
        self._tick()
        while not self._stopped:
            if self._is_lent():
                self._called_back.wait(_AWAY_SECONDS)
                self._called_back.clear()
                continue
            with self._holding:
                self._holder = threading.get_ident()
                self._turn()
                self._holder = None
        with self._holding:
            self.loop.deactivate_poller()
            self.loop.close()

    def _is_lent(self) -> bool:
        if self._guest_wants_it:
            return True
        left_at = self._guest_left_at
        if left_at and time.monotonic() - left_at < _AWAY_SECONDS:
            return True
        self._guest_left_at = 0.0
        return False

    def _turn(self) -> None:
        try:
            self.loop.poll()
            self.loop.process_timeouts()
        except Exception:
            log.exception("a callback failed; the loop goes on")

    def _tick(self) -> None:
        self.last_tick = time.monotonic()
        self.loop.call_later(0.5, self._tick)


def _nothing() -> None:
    """Wake the poller."""
