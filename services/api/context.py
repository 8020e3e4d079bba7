"""What the endpoints share: settings, database, actors, keys. For one event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from fastapi import Depends, Request
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from leveret.control import ControlSender
from leveret.declaration import load_actors
from leveret.errors import ConfigurationError, LeveretError, TooManyWaiters
from leveret.management import Management
from leveret.results import AsyncWatcher
from leveret.settings import Settings
from leveret.store import async_engine, partition
from leveret.store.api_keys import Key
from services.api.authentication import Authenticator
from services.api.catalogue import Catalogue
from services.api.streams import Streams

__all__ = ["Caller", "Context", "Shared", "caller_of"]

P = ParamSpec("P")
T = TypeVar("T")

#: What one transaction may take, with waiting for a connection.
DATABASE_SECONDS = 15.0
#: The same for what may touch many rows.
LONG_SECONDS = 120.0
_POOL = 10
_TRIES = 3
#: Two transactions in each other's way; one was rolled back and may come again.
_TRY_AGAIN = ("40001", "40P01")
_PARTITIONS_SECONDS = 300.0
_PROBE_SECONDS = 3.0
_PROBE_EVERY_SECONDS = 1.0
#: RabbitMQ's statistics are 5 s old at most; asking more often says nothing new.
_QUEUES_SECONDS = 1.0


class Context:
    """Everything that is made once for a process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = async_engine(
            settings.require_database_url(), pool_size=_POOL, application="leveret-api"
        )
        self.catalogue = Catalogue(
            load_actors(
                settings.actors, queues=settings.queues, housekeeping=settings.housekeeping
            ),
            settings.queues,
            max_body_bytes=settings.max_body_bytes,
        )
        self.authenticator = Authenticator(self.run)
        self.management = (
            None
            if settings.management_url is None
            else Management(settings.management_url, timeout_seconds=5.0)
        )
        self.watcher = AsyncWatcher(settings.require_listen_url())
        self.streams = Streams()
        self.control = None if settings.amqp_url is None else ControlSender(settings.amqp_url)
        self._vhost = _vhost_of(settings.amqp_url or "")
        self._management_lock = threading.Lock()
        self._queues: list[dict[str, Any]] = []
        self._queues_until = 0.0
        self._ready = False
        self._ready_until = 0.0
        self._days: frozenset[date] = frozenset()
        self._days_until = 0.0

    async def start(self) -> None:
        """Begin, on the loop that everything else is called on."""
        await self.watcher.start()

    async def close(self) -> None:
        """Close the connections."""
        await self.watcher.stop()
        if self.control is not None:
            await asyncio.to_thread(self.control.close)
        await self.engine.dispose()
        if self.management is not None:
            self.management.close()

    async def run(
        self,
        work: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run synchronous work in a transaction of its own, without blocking the event loop.

        The work may be run again when it was in the way of another transaction.
        """
        return await self._run(DATABASE_SECONDS, work, *args, **kwargs)

    async def run_long(
        self,
        work: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do the same as `run` for work on many rows, which may take longer."""
        return await self._run(LONG_SECONDS, work, *args, **kwargs)

    async def _run(
        self,
        seconds: float,
        work: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        for left in reversed(range(_TRIES)):
            try:
                async with asyncio.timeout(seconds), self.engine.begin() as connection:
                    return await connection.run_sync(work, *args, **kwargs)
            except DBAPIError as error:
                if not left or getattr(error.orig, "sqlstate", None) not in _TRY_AGAIN:
                    raise
        raise AssertionError("unreachable")

    async def wait_for(self, job_id: str, seconds: float) -> None:
        """Return when a job has ended, when the time is over, or when waiting is not possible."""
        try:
            await self.watcher.wait(job_id, timeout=seconds)
        except TooManyWaiters:
            raise
        except LeveretError:
            return

    async def is_ready(self) -> bool:
        """Tell whether the database answers and has the schema of this release."""
        now = time.monotonic()
        if now >= self._ready_until:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    self._ready = await self.run(_is_migrated)
            except (SQLAlchemyError, OSError, TimeoutError):
                self._ready = False
            self._ready_until = time.monotonic() + _PROBE_EVERY_SECONDS
        return self._ready

    def broker_queues(self) -> list[dict[str, Any]]:
        """Return RabbitMQ's queues with their statistics; blocks. Raises `ManagementError`."""
        if self.management is None:
            raise ConfigurationError("LEVERET_MANAGEMENT_URL is not set")
        with self._management_lock:
            if time.monotonic() >= self._queues_until:
                self._queues = self.management.queues(self._vhost)
                self._queues_until = time.monotonic() + _QUEUES_SECONDS
            return self._queues

    async def partitions(self, *, anew: bool = False) -> Collection[date]:
        """Return the days that the ledger has partitions for; makes those that it needs."""
        now = time.monotonic()
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
        if anew or now >= self._days_until or tomorrow not in self._days:
            self._days = frozenset(await self.run(partition.ensure))
            self._days_until = now + _PARTITIONS_SECONDS
        return self._days


def _is_migrated(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT to_regclass('jobs') IS NOT NULL")).scalar())


def _vhost_of(url: str) -> str:
    path = urlsplit(url.split(",", maxsplit=1)[0]).path
    return unquote(path[1:]) or "/"


def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


def caller_of(request: Request) -> Caller:
    """Return who calls; only behind the guard."""
    found: Caller = request.scope["state"]["caller"]
    return found


class Caller:
    """Whoever makes a request."""

    def __init__(self, key: Key, address: str) -> None:
        self.key = key
        self.address = address

    @property
    def who(self) -> str:
        """As the audit log names them."""
        return f"key:{self.key.id}"


Shared = Annotated[Context, Depends(_context)]
