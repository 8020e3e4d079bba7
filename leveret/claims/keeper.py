"""The keeper: one thread of a worker process that does for all its runs what must not hold them up.

It renews leases, and says later what could not be said when the run ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from leveret.errors import DatabaseUnavailable

__all__ = ["Keeper"]

log = logging.getLogger("leveret.claims")

_RETRY_SECONDS = 1.0
_MAX_DEFERRED = 10_000


class Keeper:
    """Calls ``renew`` every ``period`` seconds, and what is deferred as soon as it can.

    Thread-safe. Its thread starts with the first thing to do.
    """

    def __init__(self, renew: Callable[[], object], period: float) -> None:
        self._renew = renew
        self._period = period
        self._deferred: deque[Callable[[], object]] = deque(maxlen=_MAX_DEFERRED)
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._started = False
        self._thread = threading.Thread(target=self._keep, name="leveret-claims", daemon=True)

    def start(self) -> None:
        """See to it that leases are renewed from now on; costs nothing when they are."""
        if self._started:
            return
        with self._lock:
            if self._thread.ident is None and not self._closing.is_set():
                self._started = True
                self._thread.start()

    def defer(self, call: Callable[[], object]) -> None:
        """Call a function on the keeper's thread, again and again while the database is away."""
        self._deferred.append(call)
        self.start()
        self._wanted.set()

    def close(self, timeout: float = 2.0) -> None:
        """Try once more what is deferred, then end."""
        with self._lock:
            self._closing.set()
            started = self._started
        if started:
            self._wanted.set()
            self._thread.join(timeout)

    def _keep(self) -> None:
        due = time.monotonic() + self._period
        while not self._closing.is_set():
            self._wanted.wait(max(0.0, due - time.monotonic()))
            self._wanted.clear()
            if not self._catch_up():
                self._closing.wait(_RETRY_SECONDS)
                self._wanted.set()
            if time.monotonic() >= due:
                there = self._try(self._renew)
                due = time.monotonic() + (self._period if there else min(1.0, self._period))
        self._catch_up()

    def _catch_up(self) -> bool:
        """Do what is deferred; tell whether the database was there."""
        while self._deferred:
            call = self._deferred.popleft()
            if not self._try(call):
                self._deferred.appendleft(call)
                return False
        return True

    def _try(self, call: Callable[[], object]) -> bool:
        try:
            call()
        except DatabaseUnavailable:
            return False
        except Exception:
            log.exception("a statement about claims was refused")
        return True
