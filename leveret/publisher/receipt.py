"""What `Publisher.publish` returns: a job on its way to the broker."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from leveret.amqp import Post
from leveret.errors import ConfigurationError, PublishError, PublishTimeout
from leveret.message import Job, encode

if TYPE_CHECKING:
    from leveret.tracing.spans import Sending

__all__ = ["Receipt"]

_OVERTIME_SECONDS = 5.0
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - some thread of the parent may have held it
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Owner(Protocol):
    """Who sends receipts: the publisher."""

    def settled(self, receipt: Receipt) -> None:
        """Take note that a receipt is settled."""

    def drive(self, until: Callable[[], bool], timeout: float | None) -> None:
        """Help to settle it, on the calling thread, if that is possible."""


class Receipt(Post):
    """A job on its way to the broker; settled when the broker has confirmed it.

    Wait for it in a thread with `wait`, in asyncio with ``await``; both return the job's id. All
    methods may be called from any thread.
    """

    __slots__ = (
        "_callbacks",
        "_clock",
        "_error",
        "_gate",
        "_owner",
        "_sending",
        "began_at",
        "deadline",
        "job",
    )

    def __init__(
        self,
        job: Job,
        body: bytes,
        *,
        began_at: float,
        deadline: float,
        clock: Callable[[], float],
        owner: Owner,
        sending: Sending | None = None,
    ) -> None:
        exchange, key, properties = encode(job, timestamp=clock())
        super().__init__(exchange, key, properties, body)
        self.job = job
        #: When it was given to the publisher (`time.monotonic`).
        self.began_at = began_at
        self._sending = sending
        if sending is not None:
            sending.addressed(self, job.actor)
        self.deadline: float = deadline
        self._clock = clock
        self._error: PublishError | None = None
        self._gate: threading.Lock | None = None  # held until it is settled
        self._callbacks: list[Callable[[Receipt], object]] | None = None
        self._owner: Owner | None = owner

    @property
    def job_id(self) -> str:
        """The id under which the job is accepted; known before it is."""
        return self.job.id

    def done(self) -> bool:
        """Tell whether the job is confirmed or has failed."""
        return self._owner is None

    def exception(self) -> PublishError | None:
        """Return why the job was not accepted; None while it is under way, and once it is."""
        return self._error

    def wait(self, timeout: timedelta | float | None = None) -> str:
        """Block until the broker has confirmed the job; return its id.

        ``timeout`` (a ``timedelta``, or seconds) bounds this wait only: `PublishTimeout` then says
        nothing about the job, which is still under way. Without it the publisher's own timeout
        ends the wait. Raises the `PublishError` with which the job failed.
        """
        owner = self._owner
        if owner is not None:
            seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
            end = None if seconds is None else time.monotonic() + seconds
            owner.drive(self.done, seconds)
            if not self.done() and not self._pass_gate(end):
                raise PublishTimeout(
                    f"job {self.job.id} is not confirmed yet; it is still under way",
                    job_id=self.job.id,
                )
        if self._error is not None:
            raise self._error
        return self.job.id

    def __await__(self) -> Generator[object, None, str]:
        """Wait in asyncio, without blocking the event loop."""
        if self._owner is not None:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                if not future.done():
                    future.set_result(None)

            self.add_done_callback(lambda _receipt: _call_in(loop, wake))
            yield from future
        if self._error is not None:
            raise self._error
        return self.job.id

    def result(self, timeout: timedelta | float | None = None) -> Any:
        """Block until the job has ended, and return what its actor returned, as JSON reads it.

        Waits for the confirm, then for the ledger, which needs ``LEVERET_DATABASE_URL`` and
        ``leveret[postgres]``. ``timeout`` (a ``timedelta``, or seconds) bounds both; without it the
        wait for the job has no end. Raises the `PublishError` with which it failed, `JobFailed`,
        `JobCancelled`, `JobExpired`, `ResultLost`, `ResultTimeout` and `ConfigurationError`.
        """
        watcher = _watcher()
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        end = None if seconds is None else time.monotonic() + seconds
        self.wait(seconds)
        left = None if end is None else max(0.0, end - time.monotonic())
        return watcher.result(self.job.id, left)

    async def aresult(self, timeout: timedelta | float | None = None) -> Any:  # noqa: ASYNC109
        """Return the same as `result`, without blocking the event loop."""
        watcher = _watcher()
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        end = None if seconds is None else time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self
        except TimeoutError as error:
            if isinstance(error, PublishTimeout):
                raise
            raise PublishTimeout(
                f"job {self.job.id} is not confirmed yet; it is still under way",
                job_id=self.job.id,
            ) from None
        left = None if end is None else max(0.0, end - time.monotonic())
        return await watcher.aresult(self.job.id, left)

    def add_done_callback(self, callback: Callable[[Receipt], object]) -> None:
        """Call ``callback(receipt)`` once it is settled, on the IO thread; at once if it is."""
        with _lock:
            if self._owner is not None:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback(self)

    # ----------------------------------------------------------------------- as a post (IO thread)

    def confirmed(self) -> None:
        """Take note that the broker has the job."""
        self._settle(None)

    def failed(self, error: PublishError) -> None:
        """Take note that the job was not accepted."""
        error.job_id = self.job.id
        error.args = (f"job {self.job.id} ({self.job.actor}): {error}",)
        self._settle(error)

    def refresh(self) -> bool:
        """Measure the delay anew: time has passed since the first try."""
        if self.job.due_at is not None:
            self.exchange, self.routing_key, self.properties = encode(
                self.job, timestamp=self._clock()
            )
            if self._sending is not None:
                self._sending.addressed(self, self.job.actor)
        return True

    def refused(self, error: PublishError) -> None:
        """Take note that it was not even tried to send it."""
        if self._sending is not None:
            self._sending.end(error)

    def _pass_gate(self, end: float | None) -> bool:
        """Wait until it is settled, at most until ``end``; tell whether it is."""
        with _lock:
            gate = self._gate
            if gate is None:
                gate = self._gate = threading.Lock()
                gate.acquire()
            if self._owner is None:
                return True
        # Its deadline settles it; if nobody is left to see to that (after a fork), the wait ends.
        last = self.deadline + _OVERTIME_SECONDS
        end = last if end is None else min(end, last)
        if not gate.acquire(timeout=max(0.0, end - time.monotonic())):
            return False
        gate.release()  # for the next that waits
        return True

    def _settle(self, error: PublishError | None) -> None:
        owner = self._owner
        if owner is None:
            return
        self._error = error
        with _lock:
            self._owner = None
            callbacks, self._callbacks = self._callbacks, None
            gate = self._gate
        owner.settled(self)
        if self._sending is not None:
            self._sending.end(error)
        if gate is not None:
            gate.release()
        for callback in callbacks or ():
            callback(self)


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


def _watcher() -> Any:
    """Return what waits for results in this process; its packages are an extra."""
    try:
        process = importlib.import_module("leveret.results.process")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"waiting for a result needs {error.name!r}; install leveret[postgres]"
        ) from error
    return process.default()
