"""A connection that is kept open."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from leveret import meter
from leveret.amqp.address import parse_urls
from leveret.amqp.connection import Connection

if TYPE_CHECKING:
    from leveret.amqp.io import IOThread

__all__ = ["Link"]

log = logging.getLogger("leveret.amqp")

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 5.0


class Link:
    """Keeps one AMQP connection open on an IO thread.

    Every time a connection is up, ``on_up(connection)`` is called; every time it is gone,
    ``on_down(reason)``. Between attempts it waits with full jitter: a random time below a bound
    that doubles from 0.2 s to 5 s. Losing the broker is one log line for all links of an IO thread,
    and so is finding it again.

    ``url`` may be several URLs separated by commas, the nodes of a cluster; attempts go round. How
    a server is checked over TLS: `leveret.amqp.address`.
    ``connection`` is the class of the connections that it makes.
    All methods are for the IO thread; the callbacks run there.
    """

    def __init__(
        self,
        io: IOThread,
        url: str,
        *,
        name: str,
        on_up: Callable[[Connection], object],
        on_down: Callable[[str], object],
        on_blocked: Callable[[str | None], object] | None = None,
        connection: type[Connection] = Connection,
    ) -> None:
        self._io = io
        self._kind = connection
        self._parameters = parse_urls(url, name)
        self._name = name
        self._on_up = on_up
        self._on_down = on_down
        self._on_blocked = on_blocked
        self._attempt = 0
        self._outage: str | None = None
        self._wanted = False
        self._up = False
        self._on_closed: Callable[[], object] | None = None
        #: The present connection, open or being opened.
        self.connection: Connection | None = None

    @property
    def is_up(self) -> bool:
        """Whether a connection is open."""
        return self._up

    def open(self) -> None:
        """Connect, and stay connected."""
        self._wanted = True
        self._connect()

    def close(self, on_closed: Callable[[], object] | None = None) -> None:
        """Disconnect, and stay so; ``on_closed()`` is called when the socket is."""
        self._wanted = False
        connection = self.connection
        if connection is None or connection.is_closed:
            if on_closed is not None:
                on_closed()
            return
        self._on_closed = on_closed
        if not connection.is_closing:
            connection.close()

    def _connect(self) -> None:
        if not self._wanted:
            return
        parameters = self._parameters[self._attempt % len(self._parameters)]
        self.connection = self._kind(
            self._io,
            parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._closed,
        )

    def _opened(self, connection: Connection) -> None:
        lost_at = self._io.outages.pop(self._outage, None) if self._outage else None
        if lost_at is not None:
            log.warning(
                "%s: connected to the broker again after %.1f s",
                self._name,
                time.monotonic() - lost_at,
            )
        self._attempt, self._outage, self._up = 0, None, True
        connection.add_on_connection_blocked_callback(lambda _c, m: self._block(m.method.reason))
        connection.add_on_connection_unblocked_callback(lambda _c, _m: self._block(None))
        self._on_up(connection)

    def _block(self, reason: str | None) -> None:
        meter.connection_blocked(id(self), blocked=reason is not None)
        if self._on_blocked is not None:
            self._on_blocked(reason)

    def _failed(self, _connection: Connection, error: Exception | str) -> None:
        self._down(_reason(error))

    def _closed(self, _connection: Connection, error: Exception) -> None:
        self._down(_reason(error))

    def _down(self, reason: str) -> None:
        was_up, self._up, self.connection = self._up, False, None
        if self._wanted and self._outage is None:
            self._outage = _address(self._parameters[self._attempt % len(self._parameters)])
            if self._outage not in self._io.outages:
                self._io.outages[self._outage] = time.monotonic()
                log.warning(
                    "%s: no connection to the broker at %s (%s); trying until it is back",
                    self._name,
                    self._outage,
                    reason,
                )
        if was_up:
            if self._wanted:
                meter.connection_lost()
            self._block(None)  # the next connection is blocked only if it is told so
            self._on_down(reason)
        if self._wanted:
            bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2**self._attempt)
            self._attempt = min(self._attempt + 1, 16)
            self._io.call_later(random.uniform(0, bound), self._connect)  # noqa: S311
        elif self._on_closed is not None:
            on_closed, self._on_closed = self._on_closed, None
            on_closed()


def _address(parameters: Any) -> str:
    return f"{parameters.host}:{parameters.port}, virtual host {parameters.virtual_host!r}"


def _reason(error: Exception | str) -> str:
    """Say in a few words what pika wraps into several exceptions."""
    while isinstance(error, Exception):
        inner = (*error.args, getattr(error, "exception", None), *getattr(error, "exceptions", ()))
        wrapped = [part for part in inner if isinstance(part, Exception)]
        if not wrapped:
            break
        error = wrapped[-1]
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:200]
