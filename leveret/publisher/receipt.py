"""What `Publisher.publish` returns: a job on its way to the broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from datetime import timedelta

from leveret.amqp import Post
from leveret.errors import PublishError, PublishTimeout
from leveret.message import Job, encode

__all__ = ["Receipt"]

_lock = threading.Lock()


class Receipt(Post):
    """A job on its way to the broker; settled when the broker has confirmed it.

    Wait for it in a thread with `wait`, in asyncio with ``await``; both return the job's id. All
    methods may be called from any thread.
    """

    __slots__ = ("_callbacks", "_clock", "_error", "_gate", "_settled", "deadline", "job")

    def __init__(
        self,
        job: Job,
        body: bytes,
        *,
        deadline: float,
        clock: Callable[[], float],
        settled: Callable[[Receipt], object],
    ) -> None:
        exchange, key, properties = encode(job, timestamp=clock())
        super().__init__(exchange, key, properties, body)
        self.job = job
        self.deadline = deadline
        self._clock = clock
        self._error: PublishError | None = None
        self._gate: threading.Lock | None = None  # held until it is settled
        self._callbacks: list[Callable[[Receipt], object]] | None = None
        self._settled: Callable[[Receipt], object] | None = settled

    @property
    def job_id(self) -> str:
        """The id under which the job is accepted; known before it is."""
        return self.job.id

    def done(self) -> bool:
        """Tell whether the job is confirmed or has failed."""
        return self._settled is None

    def exception(self) -> PublishError | None:
        """Return why the job was not accepted; None while it is under way, and once it is."""
        return self._error

    def wait(self, timeout: timedelta | float | None = None) -> str:
        """Block until the broker has confirmed the job; return its id.

        ``timeout`` (a ``timedelta``, or seconds) bounds this wait only: `PublishTimeout` then says
        nothing about the job, which is still under way. Without it the publisher's own timeout
        ends the wait. Raises the `PublishError` with which the job failed.
        """
        if self._settled is not None:
            with _lock:
                gate = self._gate
                if gate is None:
                    gate = self._gate = threading.Lock()
                    gate.acquire()
            seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
            if not self.done() and not _pass(gate, seconds):
                raise PublishTimeout(
                    f"job {self.job.id} is not confirmed after {seconds} s, and still under way",
                    job_id=self.job.id,
                )
        if self._error is not None:
            raise self._error
        return self.job.id

    def __await__(self) -> Generator[object, None, str]:
        """Wait in asyncio, without blocking the event loop."""
        if self._settled is not None:
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

    def add_done_callback(self, callback: Callable[[Receipt], object]) -> None:
        """Call ``callback(receipt)`` once it is settled, on the IO thread; at once if it is."""
        with _lock:
            if self._settled is not None:
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
        return True

    def _settle(self, error: PublishError | None) -> None:
        settled = self._settled
        if settled is None:
            return
        self._error = error
        with _lock:
            self._settled = None
            callbacks, self._callbacks = self._callbacks, None
            gate = self._gate
        settled(self)
        if gate is not None:
            gate.release()
        for callback in callbacks or ():
            callback(self)


def _pass(gate: threading.Lock, seconds: float | None) -> bool:
    """Wait at a gate until it is opened, and leave it open for the next."""
    if not gate.acquire(timeout=-1 if seconds is None else max(0.0, seconds)):
        return False
    gate.release()
    return True


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
