"""What a process does while it has the lease: APScheduler, with our store and our executor.

All of it is made anew for each epoch, and reads the table anew: what was in memory under another
epoch, or before the connection was lost, counts for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import structlog
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler

from leveret.store.lease import Lease
from scheduler.bell import LONGEST_SECONDS, Bell
from scheduler.clock import DatabaseClock
from scheduler.executor import FiringExecutor
from scheduler.jobstore import ScheduleStore
from scheduler.leadership import Leadership
from scheduler.line import Line

__all__ = ["Leader"]

log = structlog.get_logger("leveret.scheduler")


class Leader:
    """One epoch of leading, from `start` to `stop`. Both are for one thread."""

    def __init__(
        self,
        leadership: Leadership,
        lease: Lease,
        line: Line,
        clock: DatabaseClock,
        *,
        max_body_bytes: int,
        lost: Callable[[], None],
    ) -> None:
        self.leadership = leadership
        self._waker = _Waker(timezone=clock.zone)
        store = ScheduleStore(clock, earlier=self._waker.wakeup)
        self._executor = FiringExecutor(
            line, lease, leadership, store, clock, max_body_bytes=max_body_bytes, lost=lost
        )
        self._waker.add_jobstore(store, "default")
        self._waker.add_executor(self._executor, "default")

    def start(self) -> None:
        """Read the schedules, and begin to fire."""
        self._waker.start()

    def changed(self, name: str | None) -> None:
        """Look at a schedule's row again; None for all of them. For any thread."""
        self._executor.changed(name)

    def stop(self) -> None:
        """Return when nothing is fired any more."""
        self._waker.shutdown()


class _Waker(BaseScheduler):  # type: ignore[misc]
    """APScheduler on a thread, as its `BackgroundScheduler`, on waits that no clock prolongs."""

    def _configure(self, config: dict[str, Any]) -> None:
        super()._configure(config)
        self._bell = Bell()
        self._waiting = threading.Thread(target=self._wait, name="apscheduler", daemon=True)

    def start(self, paused: bool = False) -> None:  # noqa: FBT001, FBT002 - APScheduler's
        """Begin."""
        super().start(paused)
        self._waiting.start()

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002 - APScheduler's
        """End, the executor first."""
        super().shutdown(wait)
        self._bell.ring()
        self._waiting.join()

    def wakeup(self) -> None:
        """Look again now."""
        self._bell.ring()

    def _wait(self) -> None:
        while self.state != STATE_STOPPED:
            try:
                seconds = self._process_jobs()
            except Exception:  # a leader that wakes no more would keep others from leading
                log.exception("scheduler.waking_failed")
                seconds = None
            self._bell.wait(LONGEST_SECONDS if seconds is None else seconds)
