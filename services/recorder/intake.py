"""Taking messages in: one connection, a channel for each queue, and what has come in order.

The broker pushes up to the prefetch of each queue. When what is held grows too large (bodies may
have a megabyte, and the database may be away), the channels are closed, which gives everything back
to its queue, and opened again with a smaller prefetch. While little is held, it is doubled again
every ten seconds, up to what it was: by a new subscription, which gives nothing back.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from leveret.amqp import IOThread, Lengths, Link
from leveret.amqp.connection import RawConnection
from leveret.ledger.event import Message

if TYPE_CHECKING:
    from leveret.amqp.connection import Connection

__all__ = ["Arrival", "Intake", "Source"]

log = logging.getLogger("leveret.recorder")

_FIRST_DELAY = 0.25
_LONGEST_DELAY = 5.0
#: Messages of one queue that are held, at most.
PREFETCH = 10_000
_LEAST_PREFETCH = 16
#: Bytes of bodies that are held, at most, about.
_MAX_BYTES = 128 * 1024 * 1024
#: How often a smaller prefetch is doubled again.
_GROW_SECONDS = 10.0


class Source:
    """The life of one consuming channel; for the IO thread, except `is_over`."""

    __slots__ = ("acked", "channel", "is_over", "queue", "renewing", "tag")

    def __init__(self, channel: Any, queue: str) -> None:
        self.channel = channel
        self.queue = queue
        self.is_over = False
        self.tag: str | None = None
        self.acked = 0
        #: Whether its subscription is just being replaced.
        self.renewing = False

    def ack(self, tag: int) -> None:
        """Ack all deliveries up to ``tag``; void when the channel is gone."""
        if not self.is_over and self.channel.is_open and tag > self.acked:
            self.acked = tag
            self.channel.basic_ack(tag, multiple=True)


class Arrival(NamedTuple):
    """A message that has come in, and what acks it."""

    source: Source
    tag: int
    message: Message
    received_at: float


class Intake:
    """Consumes queues. `take` and `ack` are for one other thread.

    Lost connections, closed channels and queues that are missing are come back to with backoff.
    ``on_count(queue, messages)`` is called on the IO thread, with what `count` has asked for.
    """

    def __init__(
        self,
        io: IOThread,
        url: str,
        *,
        name: str,
        queues: Sequence[str],
        on_count: Callable[[str, int], object],
        prefetch: int = PREFETCH,
        max_bytes: int = _MAX_BYTES,
        grow_seconds: float = _GROW_SECONDS,
    ) -> None:
        self._io = io
        self._queues = tuple(queues)
        self._most = self._prefetch = prefetch
        self._max_bytes = max_bytes
        self._grow_seconds = grow_seconds
        self._link = Link(
            io, url, name=name, on_up=self._up, on_down=self._down, connection=RawConnection
        )
        self._connection: Connection | None = None
        self._lengths = Lengths(on_count)
        self._sources: dict[str, Source] = {}
        self._failures: dict[str, int] = {}
        self._stopping = False
        self._arrivals: deque[Arrival] = deque()
        self._came = threading.Event()
        # Counted by two threads, each its own.
        self._bytes_in = self._bytes_out = 0
        self._growing = False

    # ------------------------------------------------------------------------ for the other thread

    def open(self) -> None:
        """Start consuming. Thread-safe."""
        self._io.call_soon(self._link.open)

    def close(self, timeout: float = 3.0) -> None:
        """Disconnect, and wait for it; what is not acked goes back to its queue. Thread-safe."""
        closed = threading.Event()

        def close() -> None:
            self._stopping = True
            self._link.close(closed.set)

        self._io.call_soon(close)
        closed.wait(timeout)

    def wake(self) -> None:
        """Have `take` return now. Thread-safe, and fit for a signal handler."""
        self._came.set()

    @property
    def is_ready(self) -> bool:
        """Whether every queue is being consumed."""
        return all(
            source is not None and source.tag is not None and not source.is_over
            for source in map(self._sources.get, self._queues)
        )

    @property
    def oldest(self) -> Arrival | None:
        """The first message that has not been taken, if there is one."""
        try:
            return self._arrivals[0]
        except IndexError:
            return None

    @property
    def waiting(self) -> int:
        """How many messages have not been taken."""
        return len(self._arrivals)

    @property
    def prefetch(self) -> int:
        """How many messages of each queue are held, at most."""
        return self._prefetch

    @property
    def _bytes_held(self) -> int:
        return self._bytes_in - self._bytes_out

    def take(self, *, most: int, most_bytes: int, timeout: float) -> list[Arrival]:
        """Return the messages that came first, in order; nothing when none comes in time."""
        arrivals = self._arrivals
        if not arrivals:
            self._came.clear()
            if not arrivals:
                self._came.wait(timeout)
        taken: list[Arrival] = []
        size = 0
        while arrivals and len(taken) < most and size < most_bytes:
            arrival = arrivals.popleft()
            length = len(arrival.message.body)
            self._bytes_out += length
            if not arrival.source.is_over:  # else it comes again
                size += length
                taken.append(arrival)
        return taken

    def ack(self, arrivals: Sequence[Arrival]) -> None:
        """Ack messages that `take` has returned, and all of their queues before them."""
        last: dict[Source, int] = {}
        for arrival in arrivals:
            last[arrival.source] = arrival.tag

        def ack() -> None:
            for source, tag in last.items():
                source.ack(tag)

        self._io.call_soon(ack)

    def count(self, queue: str) -> None:
        """Ask the broker how many messages of a queue are not delivered to anybody. Thread-safe.

        The answer, if there is one, goes to ``on_count``.
        """

        def ask() -> None:
            connection = self._connection
            if connection is not None and connection.is_open:
                self._lengths.ask(connection, [queue])

        self._io.call_soon(ask)

    # -------------------------------------------------------------------------- on the IO thread

    def _up(self, connection: Connection) -> None:
        self._connection = connection
        for queue in self._queues:
            self._open_channel(queue)

    def _down(self, _reason: str) -> None:
        self._connection = None
        for source in list(self._sources.values()):
            self._over(source)

    def _open_channel(self, queue: str) -> None:
        connection = self._connection
        if self._stopping or connection is None or not connection.is_open:
            return
        if queue in self._sources:
            return
        connection.channel(on_open_callback=lambda channel: self._channel_open(queue, channel))

    def _channel_open(self, queue: str, channel: Any) -> None:
        source = Source(channel, queue)
        self._sources[queue] = source
        channel.add_on_close_callback(lambda _channel, error: self._closed(source, error))
        channel.add_on_cancel_callback(lambda _frame: self._cancelled(source))
        self._subscribe(source)

    def _subscribe(self, source: Source) -> None:
        """Consume with the prefetch of now; what is held of the channel stays held."""
        channel, queue = source.channel, source.queue
        channel.basic_qos(prefetch_count=self._prefetch)
        arrivals, came = self._arrivals, self._came

        def deliver(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self._bytes_in += len(body)
            key = method.routing_key
            arrivals.append(
                Arrival(
                    source,
                    method.delivery_tag,
                    Message(
                        queue,
                        method.exchange,
                        key if isinstance(key, str) else key.decode(errors="backslashreplace"),
                        properties,
                        body,
                        method.redelivered,
                    ),
                    time.time(),
                )
            )
            if not came.is_set():
                came.set()
            if self._bytes_held > self._max_bytes:
                self._shrink()

        def consuming(frame: Any) -> None:
            source.tag = frame.method.consumer_tag
            source.renewing = False
            if self._failures.pop(queue, 0):
                log.warning("consuming queue %s again", queue)

        channel.basic_consume(queue, deliver, callback=consuming)

    def _shrink(self) -> None:
        """Give everything back, and take less of it at a time."""
        if self._prefetch <= _LEAST_PREFETCH:
            return
        held, size = max(1, len(self._arrivals)), self._bytes_held
        fitting = int(held * self._max_bytes / 4 / max(1, size))
        self._prefetch = max(_LEAST_PREFETCH, min(self._prefetch // 2, fitting))
        log.warning(
            "holding %d messages of %d MB: taking %d of each queue at a time",
            held,
            size // 1_000_000,
            self._prefetch,
        )
        self._reopen()
        self._grow_later()

    def _grow_later(self) -> None:
        if not self._growing:
            self._growing = True
            self._io.call_later(self._grow_seconds, self._grow)

    def _grow(self) -> None:
        """Take more at a time again, unless even twice what is held would be too much of it."""
        self._growing = False
        if self._stopping or self._prefetch >= self._most:
            return
        if self._bytes_held <= self._max_bytes / 8:
            self._prefetch = min(self._prefetch * 2, self._most)
            for source in self._sources.values():
                if source.tag is not None and source.channel.is_open and not source.renewing:
                    source.renewing = True
                    source.channel.basic_cancel(source.tag, callback=self._resubscribe(source))
        self._grow_later()

    def _resubscribe(self, source: Source) -> Callable[[Any], None]:
        def subscribe(_frame: Any) -> None:
            if not source.is_over and not self._stopping:
                self._subscribe(source)

        return subscribe

    def _reopen(self) -> None:
        for source in list(self._sources.values()):
            self._over(source)
            source.channel.close(0, "another prefetch")
        # Nobody can ack what is left of the old channels.
        while self._arrivals and self._arrivals[0].source.is_over:
            try:
                self._bytes_in -= len(self._arrivals.popleft().message.body)
            except IndexError:
                break

    def _cancelled(self, source: Source) -> None:
        """Come back to a queue that was deleted, or whose node is gone."""
        if source.channel.is_open:
            self._over(source)
            source.channel.close(0, "the subscription was cancelled")

    def _closed(self, source: Source, error: Exception) -> None:
        wanted = source.is_over  # by us
        if not source.is_over:
            self._over(source)
        if self._stopping or self._connection is None or not self._connection.is_open:
            return
        queue = source.queue
        if wanted:
            self._open_channel(queue)
            return
        failures = self._failures.get(queue, 0)
        self._failures[queue] = failures + 1
        if failures == 0:
            log.warning("not consuming queue %s (%s); trying until it is back", queue, error)
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures, 8))
        self._io.call_later(random.uniform(bound / 2, bound), lambda: self._open_channel(queue))  # noqa: S311

    def _over(self, source: Source) -> None:
        source.is_over = True
        if self._sources.get(source.queue) is source:
            del self._sources[source.queue]
