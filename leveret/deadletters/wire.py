"""AMQP properties as bytes: taken apart, and put together, without reading what is kept.

A message that is published again should differ only where it must. To decode its header table and
encode it anew does not do that (pika reads a float as a whole number, and cannot read every
timestamp), so properties and headers are moved here as the bytes that they are.

The layout is that of AMQP 0-9-1 §4.2.5 and §4.2.6, with the types that RabbitMQ writes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pika.data
import pika.exceptions

__all__ = ["Malformed", "decode", "join", "join_table", "short", "split", "split_table", "value"]

#: The properties in their order on the wire, each with the size of its value in bytes; a short
#: string (None) and the table of headers have a length in front.
_PROPERTIES: tuple[tuple[str, int | None], ...] = (
    ("content_type", None),
    ("content_encoding", None),
    ("headers", -1),
    ("delivery_mode", 1),
    ("priority", 1),
    ("correlation_id", None),
    ("reply_to", None),
    ("expiration", None),
    ("message_id", None),
    ("timestamp", 8),
    ("type", None),
    ("user_id", None),
    ("app_id", None),
    ("cluster_id", None),
)
#: Sizes of the values of a table, by their type.
_SIZES: Mapping[bytes, int] = {
    **dict.fromkeys((b"t", b"b", b"B"), 1),
    **dict.fromkeys((b"U", b"s", b"u"), 2),
    **dict.fromkeys((b"I", b"i", b"f"), 4),
    **dict.fromkeys((b"l", b"L", b"d", b"T"), 8),
    b"D": 5,
    b"V": 0,
}
#: These have their length in front.
_LONG = frozenset({b"S", b"x", b"A", b"F"})


class Malformed(ValueError):  # noqa: N818 - says what the bytes are
    """These bytes are not AMQP properties."""


def _take(raw: bytes, start: int, size: int) -> int:
    if start + size > len(raw):
        raise Malformed(f"{size} bytes are announced at {start}, of {len(raw)} in all")
    return start + size


def split(raw: bytes) -> dict[str, bytes]:
    """Take properties apart: the encoded value of each that is there; raises `Malformed`."""
    at = _take(raw, 0, 2)
    (flags,) = struct.unpack_from(">H", raw)
    if flags & 3:
        raise Malformed(f"the flags {flags:#06x} name properties that there are not")
    found = {}
    for bit, (name, size) in enumerate(_PROPERTIES):
        if not flags & (0x8000 >> bit):
            continue
        start = at
        if size is None:
            at = _take(raw, at, 1)
            at = _take(raw, at, raw[start])
        elif size < 0:
            at = _take(raw, at, 4)
            at = _take(raw, at, struct.unpack_from(">I", raw, start)[0])
        else:
            at = _take(raw, at, size)
        found[name] = raw[start:at]
    if at != len(raw):
        raise Malformed(f"{len(raw) - at} bytes follow the last property")
    return found


def join(properties: Mapping[str, bytes]) -> bytes:
    """Put properties together again."""
    flags = 0
    pieces = []
    for bit, (name, _) in enumerate(_PROPERTIES):
        if name in properties:
            flags |= 0x8000 >> bit
            pieces.append(properties[name])
    return struct.pack(">H", flags) + b"".join(pieces)


def split_table(table: bytes) -> list[tuple[bytes, bytes]]:
    """Take a table with its length apart: names, and values as they are encoded with their type.

    Raises `Malformed`.
    """
    found = []
    at = _take(table, 0, 4)
    while at < len(table):
        start = at
        at = _take(table, _take(table, at, 1), table[at])
        name = table[start + 1 : at]
        start = at
        at = _take(table, at, 1)
        kind = table[start:at]
        if kind in _LONG:
            length = _take(table, at, 4)
            at = _take(table, length, struct.unpack_from(">I", table, at)[0])
        elif kind in _SIZES:
            at = _take(table, at, _SIZES[kind])
        else:
            raise Malformed(f"the header {name!r} is of the type {kind!r}, which there is not")
        found.append((name, table[start:at]))
    return found


def join_table(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Put a table together, with its length in front."""
    table = b"".join(bytes((len(name),)) + name + encoded for name, encoded in fields)
    return struct.pack(">I", len(table)) + table


def decode(encoded: bytes) -> Any:
    """Read the value of a header; None when it cannot be read."""
    try:
        return pika.data.decode_value(encoded, 0)[0]
    except (
        pika.exceptions.AMQPError,
        struct.error,
        ValueError,
        OverflowError,
        OSError,
        RecursionError,
    ):
        return None


def short(text: str) -> bytes:
    """Encode a property that is a short string."""
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


def value(content: str | int) -> bytes:
    """Encode the value of a header."""
    if isinstance(content, int):
        return b"I" + struct.pack(">i", content)
    encoded = content.encode()
    return b"S" + struct.pack(">I", len(encoded)) + encoded
