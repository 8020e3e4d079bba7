"""Waiting for results from threads and from any event loop: one watcher of the process.

The watcher lives on an event loop in a thread of its own, and so does its one connection. Threads
that wait cost nothing but themselves.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import json
import os
import threading
import time
from datetime import timedelta
from typing import Any, Self

from leveret.errors import (
    ConfigurationError,
    JobCancelled,
    JobExpired,
    JobFailed,
    LeveretError,
    ResultError,
    ResultLost,
    ResultTimeout,
)
from leveret.ledger.state import State
from leveret.results.standing import Ending, Standing
from leveret.results.store import ResultStore
from leveret.results.watcher import AsyncWatcher
from leveret.settings import Settings

__all__ = ["Watcher", "aresult", "close", "result", "wait"]

_Timeout = timedelta | float | None
#: The connection is let go of when nobody has waited for so long.
_IDLE_SECONDS = 30.0


class Watcher:
    """Waits for jobs on behalf of threads and coroutines of the process.

    ``url`` leads to PostgreSQL itself, not to PgBouncer; ``store`` is where large results are.
    It connects when somebody waits. Every method may be called from any thread; `close` it at the
    end, or use it as a context manager. Not to be used in a child after a fork.
    """

    def __init__(self, url: str, *, store: ResultStore | None = None, **options: Any) -> None:
        self._store = store
        self._watcher = AsyncWatcher(url, **{"idle_seconds": _IDLE_SECONDS, **options})
        self._loop = asyncio.SelectorEventLoop()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="leveret-watcher", daemon=True)
        self._thread.start()

    def wait(self, job_id: str, timeout: _Timeout = None) -> Standing | None:
        """Block until a job has ended; return where it stands then, or after ``timeout``.

        None when the ledger does not know the job by then.
        """
        standing: Standing | None = self._block(
            self._watcher.wait(job_id, timeout=_seconds(timeout))
        )
        return standing

    def result(self, job_id: str, timeout: _Timeout = None) -> Any:
        """Block until a job has ended; return what its actor returned, as JSON reads it.

        ``timeout`` is a ``timedelta``, or seconds; None waits for ever. Raises `JobFailed`,
        `JobCancelled`, `JobExpired`, `ResultLost`, `ResultTimeout`, and `ConfigurationError` when
        the database lacks the ledger.
        """
        ending = self._block(_ending(self._watcher, job_id, _seconds(timeout)))
        return value_of(ending, self._store)

    async def aresult(self, job_id: str, timeout: _Timeout = None) -> Any:  # noqa: ASYNC109
        """Return the same as `result`, without blocking the event loop."""
        future = self._submit(_ending(self._watcher, job_id, _seconds(timeout)))
        ending = await asyncio.wrap_future(future)
        if ending.result_ref is None:
            return value_of(ending, self._store)
        return await asyncio.to_thread(value_of, ending, self._store)

    def close(self) -> None:
        """Disconnect; who still waits gets a `LeveretError`. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._watcher.stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _block(self, coroutine: Any) -> Any:
        future = self._submit(coroutine)
        try:
            return future.result()
        except BaseException:  # Ctrl-C, for one: nobody waits any more
            future.cancel()
            raise

    def _submit(self, coroutine: Any) -> concurrent.futures.Future[Any]:
        if self._closed:
            coroutine.close()
            raise LeveretError("the watcher is closed")
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("the watcher's own thread must not wait for a job")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._watcher.start())
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


async def _ending(watcher: AsyncWatcher, job_id: str, seconds: float | None) -> Ending:
    """Wait until a job has ended, and read how."""
    end = None if seconds is None else time.monotonic() + seconds
    standing: Standing | None = None
    while end is None or time.monotonic() <= end:
        left = None if end is None else max(0.0, end - time.monotonic())
        standing = await watcher.wait(job_id, timeout=left)
        if standing is None or not standing.is_terminal:
            break
        left = None if end is None else max(0.0, end - time.monotonic())
        try:
            ending = await asyncio.wait_for(watcher.ending(job_id), left)
        except TimeoutError:
            break
        if ending is not None and ending.state.is_terminal:
            return ending
        # It has been replayed since: the wait goes on.
    known = "the ledger does not know it yet" if standing is None else f"it is {standing.state}"
    raise ResultTimeout(f"job {job_id} has not ended within {seconds:g} s: {known}", job_id=job_id)


def value_of(ending: Ending, store: ResultStore | None) -> Any:
    """Return what a job's actor returned, or raise why there is nothing; may read from the store.

    Raises what `Watcher.result` raises, but for `ResultTimeout`.
    """
    job_id = ending.job_id
    match ending.state:
        case State.SUCCEEDED:
            return _result(ending, store)
        case State.CANCELLED:
            raise JobCancelled(f"job {job_id} was cancelled before it started", job_id=job_id)
        case State.EXPIRED:
            raise JobExpired(
                f"job {job_id} has expired: {ending.error or 'its time was over'}", job_id=job_id
            )
        case State.DEAD:
            kind = f"{ending.error_type}: " if ending.error_type else ""
            raise JobFailed(
                f"job {job_id} is dead ({ending.reason or 'no reason is known'}) after attempt "
                f"{ending.attempt}: {kind}{ending.error or 'no error is known'}",
                job_id=job_id,
                reason=ending.reason,
                error_type=ending.error_type,
                error=ending.error,
            )
    raise ResultError(f"job {job_id} has not ended, it is {ending.state}", job_id=job_id)


def _result(ending: Ending, store: ResultStore | None) -> Any:
    job_id = ending.job_id
    text = ending.result
    if text is None and ending.result_ref is not None:
        if store is None:
            raise ResultLost(
                f"the result of job {job_id} is in the workers' LEVERET_RESULT_STORE, as "
                f"{ending.result_ref}; set the variable here, too, to read it",
                job_id=job_id,
            )
        try:
            text = store.get(ending.result_ref)
        except Exception as error:
            raise ResultLost(
                f"the result of job {job_id} cannot be read from LEVERET_RESULT_STORE "
                f"({ending.result_ref}): {type(error).__name__}: {error}",
                job_id=job_id,
            ) from error
    if text is not None:
        return json.loads(text)
    if ending.result_lost is not None:
        raise ResultLost(
            f"job {job_id} has succeeded, but its result was not kept: {ending.result_lost}",
            job_id=job_id,
        )
    return None


def _seconds(timeout: _Timeout) -> float | None:
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout


# ------------------------------------------------------------------------- the one of the process

_default: Watcher | None = None
_lock = threading.Lock()


def default() -> Watcher:
    """Return the process's watcher, made from the settings when it is first needed.

    Raises `ConfigurationError` when ``LEVERET_DATABASE_URL`` is not set.
    """
    global _default  # noqa: PLW0603 - one connection for a process
    with _lock:
        if _default is None:
            settings = Settings.from_env()
            try:
                url = settings.require_listen_url()
            except ConfigurationError as error:
                raise ConfigurationError(f"a result is waited for in the ledger: {error}") from None
            store = settings.result_store
            _default = Watcher(url, store=None if store is None else ResultStore(store))
        return _default


def result(job_id: str, timeout: _Timeout = None) -> Any:
    """Block until a job has ended; return what its actor returned. As `Watcher.result`."""
    return default().result(job_id, timeout)


async def aresult(job_id: str, timeout: _Timeout = None) -> Any:  # noqa: ASYNC109
    """Return the same as `result`, without blocking the event loop."""
    return await default().aresult(job_id, timeout)


def wait(job_id: str, timeout: _Timeout = None) -> Standing | None:
    """Block until a job has ended, however, and return where it stands. As `Watcher.wait`."""
    return default().wait(job_id, timeout)


def close() -> None:
    """Close the process's watcher; the next wait makes another."""
    global _default
    with _lock:
        watcher, _default = _default, None
    if watcher is not None:
        watcher.close()


def _after_fork() -> None:
    """Start afresh in the child: the connection and the thread are the parent's."""
    global _default, _lock
    _default, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(close)
