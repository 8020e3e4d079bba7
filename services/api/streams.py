"""How many streams may be open: each holds a connection, a task and a place in the watcher."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.api.problem import Kind, Problem

__all__ = ["EventStream", "Streams"]

#: A page that follows what it shows has some dozens.
_PER_KEY = 100
_IN_ALL = 1000
#: Seconds after which a client may try again.
_AGAIN = {"Retry-After": "5"}


class Streams:
    """Counts the open streams of one process, by the id of the key. For one event loop."""

    def __init__(self, *, per_key: int = _PER_KEY, in_all: int = _IN_ALL) -> None:
        self._per_key = per_key
        self._in_all = in_all
        self._open: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many are open."""
        return self._open.total()

    def enter(self, key: str) -> None:
        """Count one more; raises a `Problem` of 429 when the key has too many, of 503 when all."""
        if self._open[key] >= self._per_key:
            raise Problem(
                Kind.TOO_MANY_STREAMS,
                f"your key follows {self._per_key} jobs already; end a stream before the next, or "
                "wait with ?wait= instead",
                headers=_AGAIN,
            )
        if self.total >= self._in_all:
            raise Problem(
                Kind.UNAVAILABLE,
                f"this server has {self._in_all} streams open, and takes no more",
                headers=_AGAIN,
            )
        self._open[key] += 1

    def leave(self, key: str) -> None:
        """Count one less."""
        self._open[key] -= 1
        if not self._open[key]:
            del self._open[key]


class EventStream(StreamingResponse):
    """Server-sent events, counted from now until the last is sent or the client has gone."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], *, streams: Streams, key: str) -> None:
        super().__init__(content, headers={"X-Accel-Buffering": "no"})
        self._streams = streams
        self._key = key
        streams.enter(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.leave(self._key)
