"""pika's select connection, with two habits changed.

*One write for a burst.* pika sends every frame with a system call of its own, three for a publish.
Between `begin_burst` and `end_burst` frames are collected and leave in one write; even outside of a
burst the frames of one publish leave together.

*One bad message is one bad message.* A header that pika cannot decode (a timestamp beyond year
9999, say) raises out of pika's reader and takes the connection with it, and after the redelivery
the next one. Here such a header becomes `Unreadable` properties on an otherwise normal delivery.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Sequence
from typing import Any

import pika
from pika import frame, spec
from pika.adapters.select_connection import SelectConnection

__all__ = ["THREAD_PREFIX", "Connection", "Unreadable"]

#: Every IO thread's name starts with this.
THREAD_PREFIX = "leveret-io"


class Unreadable(pika.BasicProperties):  # type: ignore[misc]
    """The properties of a delivery whose header could not be decoded; all of them are unset."""

    def __init__(self, cause: Exception | None = None) -> None:
        super().__init__()
        self.cause = cause


class Connection(SelectConnection):  # type: ignore[misc]
    """A `pika.SelectConnection` that writes bursts at once and survives bad headers."""

    _burst: list[bytes] | None = None

    def begin_burst(self) -> None:
        """Collect frames from here on; only on the IO thread."""
        self._burst = []

    def end_burst(self) -> None:
        """Send what was collected, in one write."""
        burst, self._burst = self._burst, None
        if burst:
            super()._output_marshaled_frames([b"".join(burst)])

    def _output_marshaled_frames(self, marshaled_frames: Sequence[bytes]) -> None:
        if self._burst is None:
            super()._output_marshaled_frames([b"".join(marshaled_frames)])
        else:
            self._burst.extend(marshaled_frames)

    def _read_frame(self) -> tuple[int, Any]:
        try:
            result: tuple[int, Any] = super()._read_frame()
        except Exception as error:
            header = self._unreadable_header(error)
            if header is None:
                raise
            return header
        return result

    def _unreadable_header(self, error: Exception) -> tuple[int, Any] | None:
        buffer = self._frame_buffer
        kind, channel, size = struct.unpack_from(">BHL", buffer)
        if kind != spec.FRAME_HEADER:
            return None
        (body_size,) = struct.unpack_from(">Q", buffer, spec.FRAME_HEADER_SIZE + 4)
        length = spec.FRAME_HEADER_SIZE + size + spec.FRAME_END_SIZE
        return length, frame.Header(channel, body_size, Unreadable(error))


class _NotOurs(logging.Filter):
    """Keeps pika quiet about connections of ours: `Link` says in one line what matters."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.threadName or "").startswith(THREAD_PREFIX)


for _module in (
    "adapters.base_connection",
    "adapters.select_connection",
    "adapters.utils.connection_workflow",
    "adapters.utils.io_services_utils",
    "adapters.utils.selector_ioloop_adapter",
    "callback",
    "channel",
    "connection",
    "heartbeat",
):
    logging.getLogger(f"pika.{_module}").addFilter(_NotOurs())


def thread_name(purpose: str) -> str:
    """Name an IO thread."""
    return f"{THREAD_PREFIX}-{purpose}-{threading.active_count()}"
