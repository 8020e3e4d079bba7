"""Reading what others wrote: texts, counts and times that may be anything. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pika

from leveret.message import ENVELOPE, read_moment

__all__ = [
    "MAX_COUNT",
    "VOLATILE",
    "Envelope",
    "count_in",
    "headers_json",
    "id_in",
    "in_range",
    "moment_in",
    "read_envelope",
    "storable",
    "text_in",
    "wire",
]

#: The largest attempt and run that the wire contract knows.
MAX_COUNT = 100_000
#: What the broker adds to a message that it delivers again.
VOLATILE = ("x-delivery-count", "x-acquired-count")

_YEAR_9999 = 253_402_300_800.0
_MAX_NAME = 255

_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=repr).encode


def headers_json(headers: Mapping[str, Any] | None) -> str | None:
    """Write headers down to be looked at; what JSON cannot write is its ``repr``."""
    if not headers:
        return None
    try:
        return _to_json(headers)
    except (ValueError, TypeError, RecursionError):
        return _to_json({str(name): repr(value)[:2000] for name, value in headers.items()})


def text_in(value: object) -> str | None:
    """Read a text that AMQP may have brought as bytes; None for anything else, and for nothing."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace") or None
    return None


def count_in(value: object, least: int) -> int:
    """Read a small whole number; ``least`` when it is none."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT:
        return int(value)
    return least


def moment_in(value: object) -> float | None:
    """Read the time in a header; None when it is none."""
    try:
        return in_range(read_moment(value).timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def in_range(seconds: float) -> float | None:
    """Return a time rounded to the microsecond; None when it is none that a column can hold."""
    return round(seconds, 6) if 0 < seconds < _YEAR_9999 else None


def id_in(value: object) -> str | None:
    """Return a job's id as a column can hold it; None when there is none."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        return None
    return storable(value)


def storable(text: str) -> str:
    """Return a text as a column can hold it: without U+0000, and without half characters."""
    if text.isascii() and text.isprintable():
        return text
    return (
        text.encode(errors="backslashreplace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


def _actor(value: object) -> str | None:
    return value[:_MAX_NAME] if isinstance(value, str) and value else None


class Envelope(NamedTuple):
    """What the body says when it is stock Dramatiq's."""

    id: str
    actor: str | None
    due_at: float | None
    attempt: int


def read_envelope(body: bytes) -> Envelope | None:
    """Read the body as a stock Dramatiq broker writes it; None when it is not."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not document.keys() >= ENVELOPE:
        return None
    job_id = id_in(document["message_id"])
    if job_id is None:
        return None
    options = document["options"] if isinstance(document["options"], dict) else {}
    eta = options.get("eta")
    due_at = None
    if isinstance(eta, int | float) and not isinstance(eta, bool):
        due_at = in_range(eta / 1000)
    return Envelope(
        job_id, _actor(document["actor_name"]), due_at, count_in(options.get("retries"), 0) + 1
    )


def wire(properties: pika.BasicProperties) -> bytes:
    """Write properties as they were on the wire, without what the broker adds in a redelivery."""
    headers = properties.headers
    if headers and any(name in headers for name in VOLATILE):
        kept = {name: value for name, value in headers.items() if name not in VOLATILE}
        properties.headers = kept or None
    else:
        raw = getattr(properties, "raw", None)
        if isinstance(raw, bytes):
            return raw
    try:
        return b"".join(properties.encode())
    except Exception:  # noqa: BLE001 - pika reads more than it can write
        return b"\0\0"
