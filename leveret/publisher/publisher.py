"""A thread-safe publisher with pipelined confirms."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, Self

from leveret import tracing
from leveret.amqp import IOThread, Outbound, Post
from leveret.amqp.connection import thread_name
from leveret.errors import (
    InvalidJob,
    PublisherBlocked,
    PublisherClosed,
    PublishError,
    PublishTimeout,
)
from leveret.message import MAX_BODY_BYTES, Job, encode_arguments
from leveret.meter import Meter
from leveret.names import ANY_QUEUE
from leveret.publisher.receipt import Receipt
from leveret.request import Named, keyed, make_job

__all__ = ["Publisher"]

log = logging.getLogger("leveret.publisher")


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


class Publisher:
    """Publishes jobs over one connection of its own, which it opens at the first job.

    ``publish`` returns at once with a `Receipt`, ``send`` waits until the broker has the job, and
    ``publish_many`` keeps many under way. A lost connection is opened again, with backoff, and
    what was not confirmed is sent again under the same id; a job is confirmed or fails within
    ``timeout`` (a ``timedelta``, or seconds), never neither.

    At most ``window`` jobs and ``window_bytes`` are under way; then ``publish`` blocks, except on
    a running asyncio loop, where awaiting the receipts is the back-pressure. All methods may be
    called from any thread, and in a child after a fork, where the publisher starts afresh.

    :param url: AMQP URL; several, separated by commas, are the nodes of a cluster.
    :param app_id: the name of the publishing service, carried by every job.
    """

    def __init__(
        self,
        url: str,
        *,
        app_id: str | None = None,
        timeout: timedelta | float = 30.0,
        window: int = 1000,
        window_bytes: int = 64 * 1024 * 1024,
        max_body_bytes: int = MAX_BODY_BYTES,
        name: str = "leveret-publisher",
        io: IOThread | None = None,
        outbound: Outbound | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._app_id = app_id
        self._timeout = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        self._window = window
        self._window_bytes = window_bytes
        self._max_body_bytes = max_body_bytes
        self._name = name
        self._clock = clock
        self._shared = (io, outbound) if io is not None and outbound is not None else None
        self._meter = Meter(self)
        self._reset()
        _publishers.add(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._io: IOThread | None = None
        self._outbound: Outbound | None = None
        self._incoming: deque[Receipt] = deque()
        self._under_way = 0
        self._bytes = 0
        self._waiting = 0
        self._awake = False
        self._blocked: str | None = None
        self._closed = False

    # ------------------------------------------------------------------------------- publishing

    def publish(
        self,
        actor: str | Named,
        arguments: Mapping[str, Any] | None = None,
        *,
        delay: timedelta | float | None = None,
        at: datetime | None = None,
        queue: str | None = None,
        priority: int | None = None,
        correlation_id: str | None = None,
        expires: timedelta | float | datetime | None = None,
        max_retries: int | None = None,
        idempotency_key: str | None = None,
        once: bool = False,
        unique_for: timedelta | float | None = None,
        unique_until: Literal["started", "done"] | None = None,
        on_conflict: Literal["skip", "replace"] = "skip",
        job_id: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        timeout: timedelta | float | None = None,
    ) -> Receipt:
        """Publish a job for ``actor`` (its name, or the actor); return at once with its receipt.

        :param delay: not before this time from now (a ``timedelta``, or seconds); up to 310 days.
        :param at: not before this time, instead of ``delay``.
        :param queue: the pool that runs it; by default the one that the actor is declared for.
        :param expires: not to be started after this time (from now, or a time); it is then dead.
        :param idempotency_key: jobs of the actor with the same key have their effects once.
        :param once: the job has its effects once, however often it is delivered.
        :param unique_for: jobs of the actor with the same key (by default, the same arguments)
            that are published within this time (whole seconds) are one job.
        :param unique_until: those published before it has ``started``, or is ``done``, are.
        :param on_conflict: ``skip`` runs the first of them, ``replace`` the last (debounce).
        :param job_id: the job's id; by default a new UUIDv7. The same id twice is the same job.
        :param timeout: how long to try, instead of the publisher's own.

        Raises `InvalidJob` for what breaks the wire contract, `PublisherBlocked` while the broker
        blocks publishers, `PublishTimeout` when the window stays full, `PublisherClosed`.
        """
        job = self._job(
            actor,
            arguments,
            delay=delay,
            at=at,
            queue=queue,
            priority=priority,
            correlation_id=correlation_id,
            expires=expires,
            max_retries=max_retries,
            idempotency_key=idempotency_key,
            once=once,
            unique_for=unique_for,
            unique_until=unique_until,
            on_conflict=on_conflict,
            job_id=job_id,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        return self.publish_job(job, timeout=timeout)

    def _job(self, actor: str | Named, arguments: Mapping[str, Any] | None, **options: Any) -> Job:
        return make_job(actor, arguments, now=self._clock(), app_id=self._app_id, **options)

    def publish_job(self, job: Job, *, timeout: timedelta | float | None = None) -> Receipt:
        """Publish a job that is already put together; otherwise like `publish`."""
        receipt = self._receipt(job, timeout)
        self._admit(receipt, may_block=self._may_block())
        return receipt

    def send(
        self, actor: str | Named, arguments: Mapping[str, Any] | None = None, **options: Any
    ) -> str:
        """Publish a job and wait until the broker has it; return its id. Options as `publish`."""
        return self.publish(actor, arguments, **options).wait()

    def publish_many(
        self,
        jobs: Iterable[Job | tuple[str | Named, Mapping[str, Any]]],
        *,
        progress: Callable[[int], object] | None = None,
        timeout: timedelta | float | None = None,
        **options: Any,
    ) -> list[str]:
        """Publish many jobs, pipelined; return their ids when the broker has all of them.

        Each is a `Job`, or a pair of an actor and its arguments, to which ``options`` apply as in
        `publish`. ``progress(confirmed)`` is called now and then, on the calling thread. Raises
        the first error, after all that could be published has been.
        """
        ids: list[str] = []
        unsettled: deque[Receipt] = deque()
        error: Exception | None = None
        confirmed = 0
        reported = time.monotonic()
        for job in jobs:
            if not isinstance(job, Job):
                job = self._job(job[0], job[1], **options)  # noqa: PLW2901 - the same, spelt out
            receipt = self._receipt(job, timeout)
            self._admit(receipt, may_block=True)
            ids.append(receipt.job_id)
            unsettled.append(receipt)
            while unsettled and unsettled[0].done():
                error = error or unsettled.popleft().exception()
                confirmed += 1
            if progress is not None and time.monotonic() - reported > 0.1:
                progress(confirmed)
                reported = time.monotonic()
        for receipt in unsettled:
            try:
                receipt.wait()
            except Exception as failure:  # noqa: BLE001 - raised below, after the others
                error = error or failure
            confirmed += 1
            if progress is not None and time.monotonic() - reported > 0.1:
                progress(confirmed)
                reported = time.monotonic()
        if error is not None:
            raise error
        if progress is not None:
            progress(confirmed)
        return ids

    def _receipt(self, job: Job, timeout: timedelta | float | None) -> Receipt:
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        job = keyed(job)
        now = time.monotonic()
        sending = None
        if (tracer := tracing.tracer()) is None:
            job = tracing.inherit(job)
        else:
            job, sending = tracer.sending(job)
        try:
            return Receipt(
                job,
                encode_arguments(job.arguments, limit=self._max_body_bytes),
                began_at=now,
                deadline=now + (self._timeout if seconds is None else seconds),
                clock=self._clock,
                owner=self,
                sending=sending,
            )
        except InvalidJob as error:
            if sending is not None:
                sending.end(error)
            raise

    def _admit(self, receipt: Receipt, *, may_block: bool) -> None:
        """Let a receipt into the window, waiting for room where that is possible."""
        size = len(receipt.body)
        with self._lock:
            try:
                self._refuse_when_unfit(receipt)
                if may_block and self._is_full(size):
                    self._wait_for_room(receipt, size)
            except PublishError as error:
                self._meter.failed(error)
                receipt.refused(error)
                raise
            self._under_way += 1
            self._bytes += size
            direct = None if self._incoming else self._outbound
        if direct is not None and direct.send_if_idle(receipt):
            return
        with self._lock:
            self._incoming.append(receipt)
            if self._awake:
                return
            self._awake = True
            io = self._io or self._open()
        io.call_soon(self._take_in)

    def _refuse_when_unfit(self, receipt: Receipt) -> None:
        if self._closed:
            raise PublisherClosed("the publisher is closed", job_id=receipt.job_id)
        if self._blocked is not None:
            raise PublisherBlocked(
                f"the broker blocks publishers ({self._blocked}); free its memory or disk, or "
                f"lower the load, and publish job {receipt.job_id} again",
                job_id=receipt.job_id,
            )

    @property
    def unconfirmed(self) -> int:
        """How many jobs are under way."""
        return self._under_way

    def _may_block(self) -> bool:
        """Tell whether the caller can be made to wait: not where that would stop the confirms."""
        return not _on_asyncio_loop() and not (self._io is not None and self._io.is_current)

    def _is_full(self, size: int) -> bool:
        return self._under_way >= self._window or (
            self._bytes + size > self._window_bytes and self._under_way > 0
        )

    def _wait_for_room(self, receipt: Receipt, size: int) -> None:
        self._waiting += 1
        try:
            while self._is_full(size):
                left = receipt.deadline - time.monotonic()
                if left <= 0 or not self._room.wait(left):
                    raise PublishTimeout(
                        f"{self._under_way} jobs are under way and the broker confirms none; "
                        f"job {receipt.job_id} was not published",
                        job_id=receipt.job_id,
                    )
                self._refuse_when_unfit(receipt)
        finally:
            self._waiting -= 1

    # -------------------------------------------------------------------------- on the IO thread

    def _open(self) -> IOThread:
        if self._shared is not None:
            self._io, self._outbound = self._shared
            return self._io
        _show_metrics()
        io = IOThread(thread_name("publish"))
        outbound = Outbound(io, self._url, name=self._name, on_blocked=self.on_blocked)
        self._io, self._outbound = io, outbound
        io.call_soon(outbound.open)
        return io

    def _take_in(self) -> None:
        self._awake = False
        posts: list[Post] = []
        while self._incoming:
            posts.append(self._incoming.popleft())
        if self._outbound is not None:
            self._outbound.send_many(posts)

    def drive(self, until: Callable[[], bool], timeout: float | None) -> None:
        """Run the connection on the calling thread while it has nothing else to do.

        Not for a connection that is shared with a worker, whose deliveries are none of the
        caller's business.
        """
        io, outbound = self._io, self._outbound
        if io is not None and io.is_current:
            raise RuntimeError(
                "a callback of a receipt runs where confirms arrive, and must not wait for one; "
                "publish there without waiting, or wait in another thread"
            )
        if io is None or outbound is None or self._shared is not None:
            return
        io.drive(until, timeout)
        if self._under_way or self._incoming:
            io.call_back()

    def settled(self, receipt: Receipt) -> None:
        """Make room in the window, and count."""
        job, error = receipt.job, receipt.exception()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s: %s", receipt.job_id, job.actor, error or "job.queued")
        seconds = time.monotonic() - receipt.began_at
        with self._lock:
            self._under_way -= 1
            self._bytes -= len(receipt.body)
            if error is None:
                self._meter.confirmed(job.queue or ANY_QUEUE, seconds, job.traceparent)
            else:
                self._meter.failed(error)
            if self._waiting:
                self._room.notify(1)

    def on_blocked(self, reason: str | None) -> None:
        """Take note that the broker blocks publishers, or with None that it does not any more."""
        with self._lock:
            self._blocked = reason
            self._room.notify_all()

    # ------------------------------------------------------------------------------- the ending

    def flush(self, timeout: timedelta | float | None = None) -> bool:
        """Wait until nothing is under way; tell whether that came true within ``timeout``."""
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        end = None if seconds is None else time.monotonic() + seconds
        with self._lock:
            self._waiting += 1
            try:
                while self._under_way:
                    left = None if end is None else end - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self._room.wait(left)
                    self._room.notify(1)
            finally:
                self._waiting -= 1
        return True

    def close(self, timeout: timedelta | float = 10.0) -> None:
        """Wait for what is under way, at most ``timeout``, then disconnect.

        What is still not confirmed fails with `PublisherClosed`. Closing twice is harmless.
        """
        if self._pid != os.getpid() or self._closed:
            return
        self.flush(timeout)
        with self._lock:
            self._closed = True
            io, outbound = self._io, self._outbound
        if io is None or outbound is None or self._shared is not None:
            return
        outbound.disconnect(PublisherClosed("the publisher was closed before a confirm came"))
        io.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _show_metrics() -> None:
    """Have prometheus_client show what is counted, in a process that uses it."""
    if "prometheus_client" in sys.modules and "leveret.metrics" not in sys.modules:
        try:
            importlib.import_module("leveret.metrics")
        except (ImportError, ValueError) as error:  # too old, or its names are taken
            log.warning("leveret's metrics are not shown: %s", error)


def _on_asyncio_loop() -> bool:
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - the cheap public twin raises


def _after_fork() -> None:
    """Start afresh in the child: the connection and what is under way belong to the parent."""
    for publisher in list(_publishers):
        publisher._reset()  # noqa: SLF001


def _at_exit() -> None:
    for publisher in list(_publishers):
        publisher.close(5.0)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
