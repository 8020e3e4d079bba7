"""Waiting for jobs without asking for them in a loop.

One connection of a process serves all who wait in it, however many:

1. Somebody wants to know of a job: a row in ``watches`` says so, with the time until which it is
   valid. Those that come together are written together.
2. The job is looked at, since it may have ended already; and once more a moment later, since a
   change may have been between its own look at ``watches`` and its commit.
3. Whoever changes the job notifies ``leveret_jobs`` (`leveret.ledger.watch`), and it is looked at
   again. Jobs that changed together are looked at together, and who waits is told only if what it
   sees is not what it has seen.
4. Every few seconds all jobs that are waited for are looked at, in one statement. That is for what
   no notification tells: ``watches`` is not logged, so that a crash of the database empties it.
5. A row is renewed long before it runs out, and removed when nobody waits any more. What a process
   leaves behind when it is killed runs out, and the next that renews removes it.

The connection needs a session of its own (``LISTEN``), so it goes to PostgreSQL itself and not
through PgBouncer. When it is lost, everybody goes on waiting: it comes back with backoff, writes
all rows again and looks at all jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row

from leveret.errors import ConfigurationError, LeveretError, TooManyWaiters
from leveret.ledger.watch import CHANNEL
from leveret.results.standing import Ending, Standing
from leveret.store.engine import connect_options, conninfo
from leveret.store.identity import is_storable, own_time

__all__ = ["AsyncWatcher", "Changes"]

log = logging.getLogger("leveret.results")

#: Jobs of one process that can be waited for at a time, by as many waiters.
MAX_WAITERS = 10_000
#: All jobs are looked at so often, notified or not.
FALLBACK_SECONDS = 5.0
#: The second look after a watch was written.
_SECOND_LOOK_SECONDS = 0.3
#: How long a row in ``watches`` is valid, and when it is renewed.
_VALID = timedelta(seconds=60)
_RENEW_SECONDS = 20.0
#: A statement that takes longer than this has lost its connection.
_STATEMENT_SECONDS = 10.0
#: How long a database has to answer at the end.
_GOODBYE_SECONDS = 2.0
_FIRST_DELAY = 0.2
_LONGEST_DELAY = 5.0
#: Jobs in one statement.
_CHUNK = 500

_Connection = psycopg.AsyncConnection[DictRow]

_WATCH: LiteralString = (
    "INSERT INTO watches (job_id, watcher, until)"
    " SELECT unnest(%s::text[]), %s, clock_timestamp() + %s"
    " ON CONFLICT (job_id, watcher) DO UPDATE SET until = excluded.until"
)
_UNWATCH: LiteralString = "DELETE FROM watches WHERE watcher = %s AND job_id = ANY(%s::text[])"
_SWEEP: LiteralString = (
    "DELETE FROM watches WHERE ctid = ANY (ARRAY("
    "SELECT ctid FROM watches WHERE until < clock_timestamp() LIMIT 1000 FOR UPDATE SKIP LOCKED))"
)
_TIMES: LiteralString = "SELECT id, created_at FROM job_ids WHERE id = ANY(%s::text[])"
_WHERE: LiteralString = " FROM jobs WHERE id = ANY(%s::text[]) AND created_at BETWEEN %s AND %s"
_STANDINGS: LiteralString = (
    "SELECT id, created_at, actor, queue, state, run, attempt, due_at, started_at, finished_at,"
    " progress, progress_note, cancel_requested_at, updated_at" + _WHERE
)
_ENDINGS: LiteralString = (
    "SELECT id, created_at, state, run, attempt, result, result_ref, result_lost, reason,"
    " error_type, error" + _WHERE
)


class Changes:
    """The changes of one job, as they come; made by `AsyncWatcher.watching`.

    An asynchronous iterator of `Standing`: first where the job stands now, as soon as the ledger
    knows it, then every change. Who is slower than the changes gets the latest.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        #: The latest that is known; None until the ledger knows the job.
        self.latest: Standing | None = None
        self._unseen = False
        self._error: LeveretError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, timeout: float | None = None) -> Standing | None:  # noqa: ASYNC109
        """Return the next change; None when there was none within ``timeout`` seconds.

        Raises what keeps the watcher from looking (`LeveretError`), such as tables that are
        missing.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._unseen and self._error is None:
                    self._waiter = asyncio.get_running_loop().create_future()
                    await self._waiter
        if self._error is not None:
            raise self._error
        if not self._unseen:
            return None
        self._unseen = False
        return self.latest

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> Standing:
        found = await self.next()
        if found is None:
            raise StopAsyncIteration
        return found

    def push(self, standing: Standing) -> None:
        """Take in what was seen; for the watcher."""
        if standing != self.latest:
            self.latest = standing
            self._unseen = True
            self._wake()

    def fail(self, error: LeveretError) -> None:
        """End the waiting; for the watcher."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class AsyncWatcher:
    """Waits for jobs, for all who ask on one event loop, over one connection of its own.

    ``url`` leads to PostgreSQL itself, not to PgBouncer. `start` and `stop` it on the loop that it
    is used on; it connects when somebody waits, and with ``idle_seconds`` lets go of the connection
    when nobody has for so long.
    """

    def __init__(
        self,
        url: str,
        *,
        max_waiters: int = MAX_WAITERS,
        idle_seconds: float | None = None,
        fallback_seconds: float = FALLBACK_SECONDS,
    ) -> None:
        self._conninfo = conninfo(url)
        self._max_waiters = max_waiters
        self._idle_seconds = idle_seconds
        self._fallback_seconds = fallback_seconds
        #: Who it is in ``watches``.
        self.id = f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._changes: dict[str, set[Changes]] = {}
        self._endings: dict[str, asyncio.Future[Ending | None]] = {}
        self._waiters = 0
        self._watched: set[str] = set()  # what the database has been told
        self._due: set[str] = set()  # jobs to look at now
        self._second_looks: deque[tuple[float, list[str]]] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._socket: int | None = None
        self._lost_at: float | None = None
        #: Statements sent so far.
        self.statements = 0

    @property
    def waiters(self) -> int:
        """How many are waiting."""
        return self._waiters

    # ------------------------------------------------------------------------ beginning and end

    async def start(self) -> None:
        """Begin; returns at once."""
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name="leveret-watcher")

    async def stop(self) -> None:
        """End the waiting of all, who get a `LeveretError`, and disconnect."""
        self._stopping = True
        self._wake.set()
        self._fail(LeveretError("the process stops waiting for jobs, because it ends"))
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait({task}, timeout=_GOODBYE_SECONDS)
            if not task.done():  # the database does not answer
                if self._socket is not None:
                    _sever(self._socket)
                task.cancel()
                await asyncio.wait({task}, timeout=_GOODBYE_SECONDS)

    # ---------------------------------------------------------------------------------- waiting

    @asynccontextmanager
    async def watching(self, job_id: str) -> AsyncIterator[Changes]:
        """Follow one job: ``async with watcher.watching(id) as changes: async for … in changes``.

        A job that the ledger does not know yet is waited for. Raises `TooManyWaiters` at the bound
        of waiters, and `ValueError` for what cannot be a job's id.
        """
        if not is_storable(job_id):
            raise ValueError(f"{job_id!r} cannot be the id of a job in the ledger")
        if self._task is None:
            raise LeveretError("the watcher does not run; start it first")
        if self._waiters >= self._max_waiters:
            raise TooManyWaiters(
                f"{self._waiters} are waiting for jobs in this process already, which is its "
                "bound; come back later, or ask without waiting"
            )
        changes = Changes(job_id)
        others = self._changes.get(job_id)
        if others:
            latest = next(iter(others)).latest
            if latest is not None:
                changes.push(latest)
            others.add(changes)
        else:
            self._changes[job_id] = {changes}
        self._due.add(job_id)
        self._waiters += 1
        self._wake.set()
        try:
            yield changes
        finally:
            self._waiters -= 1
            mine = self._changes[job_id]
            mine.discard(changes)
            if not mine:
                del self._changes[job_id]
                self._due.discard(job_id)
                self._wake.set()

    async def wait(
        self,
        job_id: str,
        until: Callable[[Standing], bool] = lambda standing: standing.is_terminal,
        timeout: float | None = None,  # noqa: ASYNC109 - what was seen is returned, not raised
    ) -> Standing | None:
        """Return where a job stands as soon as ``until`` says so, by default when it has ended.

        After ``timeout`` seconds it is the latest that is known, which may be None.
        """
        end = None if timeout is None else time.monotonic() + timeout
        async with self.watching(job_id) as changes:
            while True:
                left = None if end is None else max(0.0, end - time.monotonic())
                standing = await changes.next(left)
                if standing is None or until(standing):
                    return standing or changes.latest

    async def ending(self, job_id: str) -> Ending | None:
        """Read how a job has ended, with its result; None when the ledger has no such job."""
        future = self._endings.get(job_id)
        if future is None:
            future = self._endings[job_id] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return await asyncio.shield(future)

    # ----------------------------------------------------------------------------- its one task

    async def _run(self) -> None:
        failures = 0
        while not self._stopping:
            if not self._wanted():
                self._wake.clear()
                await self._wake.wait()
                continue
            began = time.monotonic()
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo,
                    autocommit=True,
                    row_factory=dict_row,
                    **connect_options("leveret watcher"),
                ) as connection:
                    self._socket = connection.pgconn.socket
                    try:
                        await self._serve(connection)
                    finally:
                        self._socket = None
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
                self._fail(
                    ConfigurationError(
                        f"the database lacks what this release needs ({_reason(error)}); "
                        "run `leveret migrate`"
                    )
                )
            except psycopg.errors.InsufficientPrivilege as error:
                self._fail(ConfigurationError(f"waiting for jobs is not allowed: {_reason(error)}"))
            except (psycopg.Error, OSError) as error:
                if self._lost_at is None and not self._stopping:
                    self._lost_at = time.monotonic()
                    log.warning(
                        "no connection to the database to wait for jobs (%s); trying until it is "
                        "back",
                        _reason(error),
                    )
            else:
                continue
            if time.monotonic() - began > _LONGEST_DELAY:
                failures = 0
            await self._pause(random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**failures)))  # noqa: S311
            failures = min(failures + 1, 16)

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)

    def _wanted(self) -> bool:
        return bool(self._changes or self._endings)

    def _fail(self, error: LeveretError) -> None:
        for changes in [c for mine in self._changes.values() for c in mine]:
            changes.fail(error)
        for future in self._endings.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever asked may be gone
        self._endings.clear()

    async def _serve(self, connection: _Connection) -> None:
        """Serve all who wait over one connection, until it is lost or nobody needs it."""
        await self._execute(connection, f"LISTEN {CHANNEL}")
        if self._lost_at is not None:
            lost, self._lost_at = time.monotonic() - self._lost_at, None
            log.warning("waiting for jobs over the database again after %.1f s", lost)
        self._watched.clear()
        self._second_looks.clear()
        self._due.update(self._changes)
        next_fallback = time.monotonic() + self._fallback_seconds
        next_renewal = time.monotonic() + _RENEW_SECONDS
        idle_since: float | None = None
        while not self._stopping:
            self._wake.clear()
            await self._tell(connection)
            now = time.monotonic()
            while self._second_looks and self._second_looks[0][0] <= now:
                self._due.update(self._second_looks.popleft()[1])
            if now >= next_fallback:
                next_fallback = now + self._fallback_seconds
                self._due.update(self._changes)
            if now >= next_renewal:
                next_renewal = now + _RENEW_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311
                await self._renew(connection)
            await self._look(connection)
            await self._read_endings(connection)
            await self._hear(connection, 0.0)
            if self._due or self._wake.is_set():
                continue
            wake_at = next_fallback if self._changes else next_renewal
            if self._second_looks:
                wake_at = min(wake_at, self._second_looks[0][0])
            if self._wanted():
                idle_since = None
            elif self._idle_seconds is not None:
                idle_since = idle_since or now
                wake_at = min(wake_at, idle_since + self._idle_seconds)
                if now >= idle_since + self._idle_seconds and not self._watched:
                    return
            if await self._readable(connection, wake_at):
                await self._hear(connection, 0.1)
        await self._forget(connection)

    async def _tell(self, connection: _Connection) -> None:
        """Write rows for what is waited for since last time, remove those of what is not."""
        for ids in _chunks(self._watched - self._changes.keys()):
            await self._execute(connection, _UNWATCH, self.id, ids)
            self._watched.difference_update(ids)
        for ids in _chunks(self._changes.keys() - self._watched):
            await self._execute(connection, _WATCH, ids, self.id, _VALID)
            self._watched.update(ids)
            self._due.update(ids)
            self._second_looks.append((time.monotonic() + _SECOND_LOOK_SECONDS, ids))

    async def _renew(self, connection: _Connection) -> None:
        for ids in _chunks(self._watched):
            await self._execute(connection, _WATCH, ids, self.id, _VALID)
        await self._execute(connection, _SWEEP)

    async def _forget(self, connection: _Connection) -> None:
        if self._watched:
            await self._execute(connection, _UNWATCH, self.id, list(self._watched))

    async def _look(self, connection: _Connection) -> None:
        """Look at the jobs that may have changed."""
        due, self._due = self._due & self._changes.keys(), set()
        for ids in _chunks(due):
            for row in await self._rows(connection, _STANDINGS, ids):
                standing = Standing.of(row)
                for changes in self._changes.get(standing.job_id, ()):
                    changes.push(standing)

    async def _read_endings(self, connection: _Connection) -> None:
        for ids in _chunks(list(self._endings), 50):
            found = {row["id"]: row for row in await self._rows(connection, _ENDINGS, ids)}
            for job_id in ids:
                future = self._endings.pop(job_id, None)
                if future is not None and not future.done():
                    row = found.get(job_id)
                    future.set_result(None if row is None else Ending.of(row))

    async def _rows(
        self, connection: _Connection, statement: LiteralString, ids: list[str]
    ) -> list[DictRow]:
        """Read rows of ``jobs`` by their ids, in the partitions where they can be."""
        times: dict[str, datetime] = {}
        for job_id in ids:
            if (at := own_time(job_id)) is not None:
                times[job_id] = at
        known = await self._execute(connection, _TIMES, ids)
        times |= {row["id"]: row["created_at"] for row in known}
        if not times:
            return []
        first, last = min(times.values()), max(times.values())
        rows = await self._execute(connection, statement, list(times), first, last)
        return [row for row in rows if row["created_at"] == times[row["id"]]]

    async def _hear(self, connection: _Connection, seconds: float) -> None:
        """Take in the notifications that have come."""
        with _bounded(connection):
            async for notification in connection.notifies(timeout=seconds, stop_after=1):
                if notification.payload in self._changes:
                    self._due.add(notification.payload)

    async def _readable(self, connection: _Connection, until: float) -> bool:
        """Wait for bytes from the database, for `_wake`, or for a time; tell whether for bytes."""
        loop = asyncio.get_running_loop()
        socket_number = connection.pgconn.socket
        came = False

        def readable() -> None:
            nonlocal came
            came = True
            loop.remove_reader(socket_number)
            self._wake.set()

        loop.add_reader(socket_number, readable)
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(socket_number)
        return came

    async def _execute(
        self, connection: _Connection, statement: LiteralString, *arguments: Any
    ) -> list[DictRow]:
        self.statements += 1
        with _bounded(connection):
            cursor = await connection.execute(statement, arguments or None)
            return await cursor.fetchall() if cursor.description is not None else []


@contextmanager
def _bounded(connection: _Connection) -> Iterator[None]:
    """End the connection if the block takes too long: a peer may be gone without a word.

    Cancelling does not do: psycopg then waits for the server to agree.
    """
    socket_number = connection.pgconn.socket
    handle = asyncio.get_running_loop().call_later(_STATEMENT_SECONDS, _sever, socket_number)
    try:
        yield
    finally:
        handle.cancel()


def _sever(socket_number: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(socket_number)) as end:
        end.shutdown(socket.SHUT_RDWR)


def _chunks(ids: Iterable[str] | Collection[str], size: int = _CHUNK) -> list[list[str]]:
    every = list(ids)
    return [every[start : start + size] for start in range(0, len(every), size)]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
