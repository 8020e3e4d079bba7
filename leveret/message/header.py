"""The headers of a job: which there are, and how each is read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from leveret.errors import InvalidJob
from leveret.message.moment import format_time, read_moment
from leveret.message.reason import Reason
from leveret.message.text import bytes_of
from leveret.message.trace import read_trace

__all__ = ["BROKER_HEADERS", "HEADERS", "PREFIX", "Header", "read_headers"]

PREFIX = "x-leveret-"
#: What the broker wrote into the headers of a message, or has already honoured. A message that is
#: published again must lose it: with the old ``x-death`` on it, the second trip through the delay
#: wheel looks like a cycle to the broker, which drops the message.
BROKER_HEADERS = frozenset(
    {
        "x-death",
        "x-delivery-count",
        "x-acquired-count",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "CC",
        "BCC",
    }
)


def _whole(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        # pika reads a long as a subclass of int, so that the type alone says little
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return read


def _text(value: object) -> str:
    if not isinstance(value, str) or not 0 < bytes_of(value) <= 255:
        raise ValueError("a string of 1 to 255 bytes")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("a boolean")
    return value


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value

    return read


def _read_period(value: object) -> timedelta:
    return timedelta(seconds=_whole(1, _LONGEST_PERIOD)(value))


def _write_period(value: timedelta) -> int:
    seconds = value.total_seconds()
    if not seconds.is_integer():
        raise ValueError("whole seconds")
    return int(seconds)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Header:
    """One header of the contract: which field of a job it is, and how it is read and written."""

    attribute: str
    read: Callable[[object], Any]
    write: Callable[[Any], Any] = _same
    default: object = None
    description: str = ""
    #: What it looks like on the wire, as JSON Schema.
    schema: Mapping[str, object] = field(default_factory=dict)


#: A year, in seconds.
_LONGEST_PERIOD = 366 * 86_400
_TIME = {"type": "string", "format": "date-time"}
_KEY = {"type": "string", "minLength": 1, "maxLength": 255}

#: The headers of the contract, without their prefix ``x-leveret-``.
HEADERS: Mapping[str, Header] = {
    "attempt": Header(
        "attempt",
        _whole(1, 100_000),
        default=1,
        description="1 for the first run",
        schema={"type": "integer", "minimum": 1, "maximum": 100_000, "default": 1},
    ),
    "run": Header(
        "run",
        _whole(0, 100_000),
        default=0,
        description="how often the job has been replayed",
        schema={"type": "integer", "minimum": 0, "maximum": 100_000, "default": 0},
    ),
    "max-retries": Header(
        "max_retries",
        _whole(0, 1000),
        description="replaces the actor's own limit",
        schema={"type": "integer", "minimum": 0, "maximum": 1000},
    ),
    "due-at": Header(
        "due_at", read_moment, format_time, description="when it was wanted", schema=_TIME
    ),
    "expires-at": Header(
        "expires_at",
        read_moment,
        format_time,
        description="not to be started after this time",
        schema=_TIME,
    ),
    "idempotency-key": Header(
        "idempotency_key",
        _text,
        description="jobs of one actor with the same key are one effect",
        schema=_KEY,
    ),
    "once": Header(
        "once",
        _flag,
        default=False,
        description="its database effects happen once (needs a claim)",
        schema={"type": "boolean", "default": False},
    ),
    "unique-for": Header(
        "unique_for",
        _read_period,
        _write_period,
        description="seconds in which jobs of one actor with the same key are one job",
        schema={"type": "integer", "minimum": 1, "maximum": _LONGEST_PERIOD},
    ),
    "unique-until": Header(
        "unique_until",
        _one_of("started", "done"),
        description="jobs with the same key that are published before then are one job",
        schema={"type": "string", "enum": ["started", "done"]},
    ),
    "on-conflict": Header(
        "on_conflict",
        _one_of("skip", "replace"),
        default="skip",
        description="which of them runs: skip leaves the first, replace the last",
        schema={"type": "string", "enum": ["skip", "replace"], "default": "skip"},
    ),
    "schedule": Header(
        "schedule", _text, description="the schedule that published it", schema=_KEY
    ),
    "slot": Header(
        "slot",
        read_moment,
        format_time,
        description="the moment of the schedule that it stands for",
        schema=_TIME,
    ),
}
_WIRE_HEADERS = {PREFIX + name: header for name, header in HEADERS.items()}


def read_headers(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read the fields of a job that are headers; raises `InvalidJob` for one that is wrong."""
    fields: dict[str, Any] = {}
    if not headers:
        return fields
    for name, value in headers.items():
        header = _WIRE_HEADERS.get(name)
        if header is not None:
            try:
                fields[header.attribute] = header.read(value)
            except (ValueError, OverflowError) as error:
                raise InvalidJob(
                    Reason.BAD_HEADER, f"the header {name} is {str(value)[:200]!r}, not {error}"
                ) from None
    if "traceparent" in headers:
        fields.update(read_trace(headers))
    return fields
