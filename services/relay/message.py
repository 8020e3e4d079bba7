"""A row as a message. Pure.

A row is written by `leveret.outbox.enqueue`, by Leveret for a replay, or by anybody with an
``INSERT``. So nothing that it holds is believed before it has been read here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pika

from leveret import names, wheel
from leveret.deadletters import wire
from leveret.errors import InvalidJob
from leveret.message import BROKER_HEADERS, PERSISTENT, Job, Reason, encode
from leveret.message.trace import TRACE_HEADERS, read_trace
from leveret.outbox.row import held_until, read_options

__all__ = ["Carry", "Held", "Message", "Row", "message_of"]


class Carry(Protocol):
    """Says what a message carries of a trace."""

    def __call__(self, found: Mapping[str, str], *, again: bool) -> Mapping[str, str]:
        """Return headers; ``found`` is what the row has, ``again`` whether the job ran before."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row as the relay reads it, in forms that any row can be read in."""

    id: int
    job_id: str
    actor: str
    queue: str | None
    #: JSON, as it stands there.
    options: str | None
    #: Seconds since 1970; may be infinite.
    due_at: float | None
    properties: bytes | None
    routing_key: str | None
    #: The body, unless it is too large to be read with the others.
    body: bytes | None
    body_bytes: int
    #: When the transaction that wrote it began; seconds since 1970.
    created_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """All of a message but its body."""

    exchange: str
    routing_key: str
    properties: pika.BasicProperties


@dataclass(frozen=True, slots=True)
class Held:
    """It is due beyond the wheel's horizon, and stays until then."""

    until: datetime


def message_of(row: Row, *, now: float, carry: Carry | None = None) -> Message | Held:
    """Read a row; raises `InvalidJob` when it cannot be published as it is.

    ``carry`` says what the message carries of a trace, instead of what the row does.
    """
    due_at = _time(row.due_at)
    hold = None if due_at is None else held_until(due_at, now=now)
    if hold is not None:
        return Held(hold)
    if row.properties is not None:
        return _as_it_was(row, row.properties, due_at, now, carry)
    job = Job(
        actor=row.actor,
        id=row.job_id,
        queue=row.queue,
        due_at=due_at,
        **read_options(_load(row.options)),
    )
    exchange, key, properties = encode(job, timestamp=now)
    if carry is not None:
        headers = properties.headers or {}
        again = job.run > 0
        properties.headers = _joined(headers, carry(read_trace(headers), again=again)) or None
    return Message(exchange=exchange, routing_key=key, properties=properties)


def _joined(headers: Mapping[str, Any], carried: Mapping[str, str]) -> dict[str, Any]:
    without = {name: value for name, value in headers.items() if name not in TRACE_HEADERS}
    return {**(without if carried else headers), **carried}


class _Encoded(pika.BasicProperties):  # type: ignore[misc]
    """Properties that are encoded already."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._raw = raw

    def encode(self) -> list[bytes]:
        """Return them as they are."""
        return [self._raw]


_LEFT_OUT = ("expiration", "user_id", "cluster_id")
_TRACE = frozenset(name.encode() for name in TRACE_HEADERS)
_BROKERS = frozenset(name.encode() for name in BROKER_HEADERS)


def _as_it_was(
    row: Row, raw: bytes, due_at: datetime | None, now: float, carry: Carry | None
) -> Message:
    """Address a message that was published before, to the byte but for what its way left on it."""
    if not row.routing_key:
        raise InvalidJob(Reason.BAD_PROPERTY, "a row with properties needs a routing_key, too")
    try:
        # What pika cannot read might end the connection, and with it those beside it.
        trace = read_trace(pika.BasicProperties().decode(raw).headers or {})
        properties = wire.split(raw)
        headers = wire.split_table(properties["headers"]) if "headers" in properties else []
    except Exception as error:  # noqa: BLE001 - whatever pika stumbles over
        raise InvalidJob(
            Reason.UNREADABLE_HEADER, f"its properties cannot be read: {error!r}"
        ) from None
    if headers:
        kept = [(name, value) for name, value in headers if name not in _BROKERS]
        properties["headers"] = wire.join_table(kept)
    properties["delivery_mode"] = bytes((PERSISTENT,))
    properties.setdefault("message_id", wire.short(row.job_id))
    for name in _LEFT_OUT:
        properties.pop(name, None)
    exchange, key = names.JOBS, wheel.split_key(row.routing_key)[1]
    delay = timedelta(0) if due_at is None else timedelta(seconds=due_at.timestamp() - now)
    if delay > timedelta(0):
        exchange, key = names.DELAY, wheel.delayed_key(delay, key)
    if len(key.encode()) > 255:
        raise InvalidJob(Reason.BAD_PROPERTY, f"its routing key is too long: {key[:300]!r}")
    if carry is not None and (carried := carry(trace, again=True)):
        split = wire.split_table(properties["headers"]) if "headers" in properties else []
        kept = [(name, value) for name, value in split if name not in _TRACE]
        kept += [(name.encode(), wire.value(value)) for name, value in carried.items()]
        properties["headers"] = wire.join_table(kept)
    return Message(exchange=exchange, routing_key=key, properties=_Encoded(wire.join(properties)))


def _time(seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)  # raises for what is not finite, too
    except (ValueError, OverflowError, OSError):
        raise InvalidJob(
            Reason.BAD_PROPERTY, f"due_at is no date in the calendar: {seconds} s since 1970"
        ) from None


def _load(text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJob(Reason.BAD_HEADER, f"options cannot be read: {error}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidJob(
            Reason.BAD_HEADER, f"options are a JSON object, not {type(document).__name__}"
        )
    return document
