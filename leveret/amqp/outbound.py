"""Publishing with pipelined confirms, on the IO thread.

Many messages are under way at once; each `Post` is settled by the broker's confirm. What is
unconfirmed when a connection is lost is sent again on the next one, in the same order, so a post is
delivered at least once and never forgotten.

A publish that the broker refuses outright (no such exchange, no permission for the routing key, a
message too large) closes the channel, and the broker does not say which publish it was. The posts
under way then go out again one at a time on a new channel, until the refused one is alone when the
channel closes: it fails, the others go through.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions

from leveret.amqp.link import Link
from leveret.errors import PublishError, PublishRejected, PublishTimeout

if TYPE_CHECKING:
    from leveret.amqp.connection import Connection
    from leveret.amqp.io import IOThread

__all__ = ["Outbound", "Post"]

log = logging.getLogger("leveret.amqp")

#: Messages written before confirms are read again.
_MAX_BURST = 256
#: Bytes written in one burst.
_MAX_BURST_BYTES = 4 * 1024 * 1024
_SWEEP_SECONDS = 0.25


class Post:
    """One message on its way to the broker.

    Subclasses say what happens when it is settled, in `confirmed` and `failed`; exactly one of
    them is called, once, on the IO thread.
    """

    __slots__ = ("body", "exchange", "properties", "routing_key")

    #: The broker must find a queue for it.
    mandatory = False
    #: When it fails if it is still not confirmed (`time.monotonic`); None waits for ever.
    deadline: float | None = None

    def __init__(
        self, exchange: str, routing_key: str, properties: pika.BasicProperties, body: bytes
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body

    def confirmed(self) -> None:
        """Take note that the broker has it."""

    def failed(self, error: PublishError) -> None:
        """Take note that it will not be sent, or not be sent again."""

    def refresh(self) -> bool:
        """Bring it up to date before it is sent again; False gives it up silently."""
        return True


class Outbound:
    """Publishes posts over one link, pipelined.

    For the IO thread, where the posts' callbacks run too; only `send_if_idle` may be called from
    any thread, and `disconnect` from any other.
    """

    def __init__(
        self,
        io: IOThread,
        url: str,
        *,
        name: str,
        on_blocked: Callable[[str | None], object] | None = None,
    ) -> None:
        self._io = io
        self._link = Link(
            io, url, name=name, on_up=self._up, on_down=self._down, on_blocked=on_blocked
        )
        self._connection: Connection | None = None
        self._channel: Any = None
        self._tag = 0
        self._queue: deque[Post] = deque()
        self._unconfirmed: OrderedDict[int, Post] = OrderedDict()
        self._returned: dict[str, str] = {}
        #: Posts that go out one at a time, because one of them closed a channel.
        self._suspects = 0
        self._scheduled = False
        self._sweeping: Any = None
        #: Held by whoever writes: tags are given out in the order of the writes.
        self._lock = threading.Lock()

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent now."""
        return self._channel is not None

    @property
    def is_closed(self) -> bool:
        """Whether there is no connection, not even one that is being opened or closed."""
        return self._link.connection is None

    @property
    def pending(self) -> int:
        """Posts that are not settled yet."""
        return len(self._queue) + len(self._unconfirmed)

    def open(self) -> None:
        """Connect, and stay connected."""
        self._link.open()
        self._sweep()

    def close(self, on_closed: Callable[[], object] | None = None) -> None:
        """Disconnect; posts that are not settled stay so."""
        if self._sweeping is not None:
            self._io.cancel(self._sweeping)
            self._sweeping = None
        self._channel = None
        self._link.close(on_closed)

    def disconnect(self, error: PublishError, *, timeout: float = 5.0) -> None:
        """Fail everything that is not settled, disconnect, and wait until that is done.

        At most ``timeout`` seconds. Not for the IO thread, which does it.
        """
        closed = threading.Event()

        def do() -> None:
            self.fail_all(error)
            self.close(closed.set)

        self._io.call_soon(do)
        closed.wait(timeout)

    def send(self, post: Post) -> None:
        """Queue a post; it leaves with the others of this turn of the loop."""
        self._queue.append(post)
        if not self._scheduled and self._channel is not None:
            self._scheduled = True
            self._io.call_soon(self.flush)

    def send_if_idle(self, post: Post) -> bool:
        """Write a post from the calling thread, if nothing else is under way; tell whether it was.

        Saves a publisher that sends one at a time the way over the IO thread. Thread-safe.
        """
        if self._unconfirmed or self._queue:
            return False
        with self._lock:
            channel = self._channel
            if channel is None or self._unconfirmed or self._queue or self._suspects:
                return False
            try:
                return self._write(channel, post)
            except Exception as error:  # noqa: BLE001 - what cannot be encoded fails
                reason = error
        post.failed(PublishError(f"the message cannot be encoded: {reason}"))
        return True

    def send_many(self, posts: list[Post]) -> None:
        """Queue posts and write them now."""
        self._queue.extend(posts)
        self.flush()

    def fail_all(self, error: PublishError) -> None:
        """Give up everything that is not settled."""
        with self._lock:
            posts = [*self._unconfirmed.values(), *self._queue]
            self._unconfirmed.clear()
        self._queue.clear()
        self._suspects = 0
        for post in posts:
            post.failed(error)

    def flush(self) -> None:
        """Write what is queued, as one burst."""
        self._scheduled = False
        channel, connection = self._channel, self._connection
        if channel is None or connection is None or not self._queue:
            return
        burst = size = 0
        unfit: list[tuple[Post, Exception]] = []
        with self._lock:
            connection.begin_burst()
            try:
                while self._queue and burst < _MAX_BURST and size < _MAX_BURST_BYTES:
                    if self._suspects and self._unconfirmed:
                        break
                    post = self._queue.popleft()
                    try:
                        written = self._write(channel, post)
                    except Exception as error:  # noqa: BLE001 - what cannot be encoded fails alone
                        unfit.append((post, error))
                        continue
                    if not written:
                        self._queue.appendleft(post)
                        break
                    burst += 1
                    size += len(post.body)
            finally:
                connection.end_burst()
        for post, reason in unfit:
            post.failed(PublishError(f"the message cannot be encoded: {reason}"))
        if self._queue and not self._scheduled and not (self._suspects and self._unconfirmed):
            self._scheduled = True
            self._io.call_soon(self.flush)

    def _write(self, channel: Any, post: Post) -> bool:
        """Write one post, under the lock; tell whether the channel took it."""
        tag = self._tag + 1
        self._unconfirmed[tag] = post  # first, since the confirm may be faster than this thread
        try:
            channel.basic_publish(
                post.exchange,
                post.routing_key,
                post.body,
                post.properties,
                mandatory=post.mandatory,
            )
        except (pika.exceptions.ChannelWrongStateError, pika.exceptions.ConnectionWrongStateError):
            del self._unconfirmed[tag]
            return False
        except Exception:
            del self._unconfirmed[tag]
            raise
        self._tag = tag
        return True

    # ------------------------------------------------------------------ the link's callbacks

    def _up(self, connection: Connection) -> None:
        self._connection = connection
        connection.channel(on_open_callback=self._channel_open)

    def _channel_open(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        with self._lock:
            self._channel, self._tag = channel, 0
        self.flush()

    def _down(self, _reason: str) -> None:
        with self._lock:
            self._connection = self._channel = None
        self._requeue()

    def _channel_closed(self, channel: Any, error: Exception) -> None:
        if channel is not self._channel and self._channel is not None:
            return
        with self._lock:
            self._channel = None
        if not isinstance(error, pika.exceptions.ChannelClosedByBroker):
            return
        if len(self._unconfirmed) == 1:
            _, post = self._unconfirmed.popitem()
            self._suspects = max(0, self._suspects - 1)
            post.failed(
                PublishRejected(
                    f"the broker refused to publish to {post.exchange!r} with the routing key "
                    f"{post.routing_key!r}: {error.reply_text}",
                    code=error.reply_code,
                )
            )
        else:
            self._suspects = len(self._unconfirmed)
        self._requeue()
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.channel(on_open_callback=self._channel_open)

    def _requeue(self) -> None:
        with self._lock:
            lost = list(self._unconfirmed.values())
            self._unconfirmed.clear()
        unconfirmed = [post for post in lost if post.refresh()]
        self._suspects = min(self._suspects, len(unconfirmed))
        self._returned.clear()
        self._queue.extendleft(reversed(unconfirmed))

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        self._returned[properties.message_id] = f"{method.reply_code} {method.reply_text}"

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        accepted = isinstance(method, pika.spec.Basic.Ack)
        if method.multiple:
            tags = []
            with self._lock:
                for tag in self._unconfirmed:
                    if tag > method.delivery_tag:
                        break
                    tags.append(tag)
        else:
            tags = [method.delivery_tag]
        for tag in tags:
            post = self._unconfirmed.pop(tag, None)
            if post is not None:
                self._settle(post, accepted=accepted)
        if self._suspects or self._queue:
            self.flush()

    def _settle(self, post: Post, *, accepted: bool) -> None:
        if self._suspects:
            self._suspects -= 1
        returned = self._returned.pop(post.properties.message_id, None) if self._returned else None
        if returned is not None:
            post.failed(
                PublishRejected(
                    f"no queue takes what is published to {post.exchange!r} with the routing key "
                    f"{post.routing_key!r} ({returned}); apply the topology"
                )
            )
        elif accepted:
            post.confirmed()
        else:
            post.failed(
                PublishRejected(
                    f"the broker refused a message for {post.routing_key!r}: a queue that it goes "
                    "to is full or not available"
                )
            )

    def _sweep(self) -> None:
        """Fail what is past its deadline."""
        self._sweeping = self._io.call_later(_SWEEP_SECONDS, self._sweep)
        now = time.monotonic()
        with self._lock:
            late = [t for t, p in self._unconfirmed.items() if p.deadline and p.deadline <= now]
            posts = [self._unconfirmed.pop(tag) for tag in late]
        if any(p.deadline and p.deadline <= now for p in self._queue):
            posts += [p for p in self._queue if p.deadline and p.deadline <= now]
            self._queue = deque(p for p in self._queue if not p.deadline or p.deadline > now)
        state = "connected" if self.is_up else "not connected to the broker"
        for post in posts:
            post.failed(PublishTimeout(f"no confirm came in time ({state}); it is safe to repeat"))
        if posts:
            self.flush()
