"""pika's select connection, with three habits changed.

*One write for a burst.* pika sends every frame with a system call of its own, three for a publish.
Between `begin_burst` and `end_burst` frames are collected and leave in one write; even outside of a
burst the frames of one publish leave together.

*Write at once.* pika buffers what it writes, asks the poller for writability, and sends on the next
turn of the loop. Here an empty buffer means that the socket is asked first; only what it does not
take is buffered. (Not over TLS, where a write may have to read.) This also makes writing safe from
any thread: frames leave whole and in the order in which the lock was had, and pika's own buffer is
only touched on the IO thread.

*One bad message is one bad message.* A header that pika cannot decode (a timestamp beyond year
9999, say) raises out of pika's reader and takes the connection with it, and after the redelivery
the next one. Here such a header becomes `Unreadable` properties on an otherwise normal delivery.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pika
from pika import frame, spec
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel

if TYPE_CHECKING:
    from leveret.amqp.io import IOThread

__all__ = ["THREAD_PREFIX", "Connection", "RawConnection", "Unreadable", "thread_name"]

#: Every IO thread's name starts with this.
THREAD_PREFIX = "leveret-io"


class Unreadable(pika.BasicProperties):  # type: ignore[misc]
    """The properties of a delivery whose header could not be decoded; all of them are unset."""

    def __init__(self, cause: Exception | None = None, raw: bytes = b"") -> None:
        super().__init__()
        self.cause = cause
        #: The header as it came: property flags, and the properties.
        self.raw = raw


class _Channel(Channel):  # type: ignore[misc]
    """A channel that also delivers what was on its way when its subscription was cancelled.

    pika rejects such messages by itself, behind the back of whoever counts delivery tags, and the
    broker charges them with a failed delivery.
    """

    def _on_deliver(self, method_frame: Any, header_frame: Any, body: bytes) -> None:
        consumer = self._consumers.get(method_frame.method.consumer_tag)
        if consumer is None:
            super()._on_deliver(method_frame, header_frame, body)
        else:
            consumer(self, method_frame.method, header_frame.properties, body)


class Connection(SelectConnection):  # type: ignore[misc]
    """A `pika.SelectConnection` that writes bursts at once and survives bad headers."""

    def __init__(self, io: IOThread, *args: Any, **kwargs: Any) -> None:
        self._io = io
        self._burst: list[bytes] | None = None
        self._write_lock = threading.Lock()
        self._overflow: list[bytes] = []
        super().__init__(*args, custom_ioloop=io.loop, **kwargs)

    def _create_channel(self, channel_number: int, on_open_callback: Any) -> Channel:
        return _Channel(self, channel_number, on_open_callback)

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

    def _adapter_emit_data(self, data: bytes) -> None:
        with self._write_lock:
            transport = self._transport
            sock = getattr(transport, "_sock", None)
            if (
                type(sock) is socket.socket
                and not self._overflow
                and transport.get_write_buffer_size() == 0
            ):
                try:
                    sent = sock.send(data)
                except OSError:  # would block, or is broken: the transport finds out and says so
                    sent = 0
                if sent == len(data):
                    return
                data = data[sent:]
            self._overflow.append(data)
        if self._io.is_current:
            self._buffer_overflow()
        else:
            self._io.call_soon(self._buffer_overflow)

    def _buffer_overflow(self) -> None:
        with self._write_lock:
            if self._overflow and self._transport is not None:
                super()._adapter_emit_data(b"".join(self._overflow))
            self._overflow.clear()

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
        raw = bytes(buffer[spec.FRAME_HEADER_SIZE + 12 : length - spec.FRAME_END_SIZE])
        return length, frame.Header(channel, body_size, Unreadable(error, raw))


class RawConnection(Connection):
    """A connection whose deliveries keep their header as it came, in ``properties.raw``."""

    def _read_frame(self) -> tuple[int, Any]:
        result = super()._read_frame()
        found = result[1]
        if isinstance(found, frame.Header) and not isinstance(found.properties, Unreadable):
            begin = spec.FRAME_HEADER_SIZE + 12
            found.properties.raw = bytes(
                self._frame_buffer[begin : result[0] - spec.FRAME_END_SIZE]
            )
        return result


def thread_name(purpose: str) -> str:
    """Name an IO thread."""
    return f"{THREAD_PREFIX}-{purpose}-{threading.active_count()}"
