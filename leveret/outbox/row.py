"""What a row of ``leveret_outbox`` says: a job as a row, and a row as a message. Pure.

A row is written by `leveret.outbox.enqueue`, or by anybody with an ``INSERT``: ``actor`` and
``body`` are enough. So nothing that a row holds is believed before it has been read here.

A job that is due beyond the delay wheel's horizon stays in the table: ``hold_until`` is the time
from which on the wheel can take it. So does one that cannot be published, with ``infinity``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pika

from leveret import names, wheel
from leveret.errors import InvalidJob
from leveret.message import (
    HEADERS,
    MAX_BODY_BYTES,
    Job,
    Reason,
    encode,
    encode_arguments,
    republished,
)

__all__ = ["OPTIONS", "Entry", "Held", "Message", "Row", "entry_of", "held_until", "message_of"]

#: A job leaves for the wheel when it is due within this time: a day before it must.
_REACH: timedelta = wheel.HORIZON - timedelta(days=1)
#: The fields of a job that are AMQP properties, or headers of W3C.
_PLAIN = ("priority", "correlation_id", "app_id", "traceparent", "tracestate")
#: The fields that are headers of the contract.
_HEADERS = {h.attribute: h for h in HEADERS.values() if h.attribute != "due_at"}
#: The names that ``options`` may have.
OPTIONS = (*_PLAIN, *_HEADERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A job as it is inserted."""

    job_id: str
    actor: str
    queue: str | None
    body: bytes
    #: JSON.
    options: str | None
    due_at: datetime | None
    #: None for a job that may leave at once.
    hold_until: datetime | None


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


# ----------------------------------------------------------------------------------------- writing


def entry_of(job: Job, *, now: float, limit: int = MAX_BODY_BYTES) -> Entry:
    """Write a job as a row; raises `InvalidJob` for what the publisher would refuse, too.

    But for one thing: a job may be due beyond the wheel's horizon.
    """
    body = encode_arguments(job.arguments, limit=limit)
    hold = None
    if job.due_at is not None and job.due_at.tzinfo is not None:
        hold = held_until(job.due_at, now=now)
    encode(job if hold is None else replace(job, due_at=None), timestamp=now)
    if "\0" in job.id:
        raise InvalidJob(Reason.BAD_PROPERTY, f"id is kept as text, without U+0000, not {job.id!r}")
    options = _write_options(job)
    return Entry(
        job_id=job.id,
        actor=job.actor,
        queue=job.queue,
        body=body,
        options=json.dumps(options) if options else None,
        due_at=job.due_at,
        hold_until=hold,
    )


def held_until(due_at: datetime, *, now: float) -> datetime | None:
    """Return until when a job stays in the table; None when the wheel can take it now."""
    beyond = due_at.timestamp() - now > wheel.HORIZON.total_seconds()
    return due_at - _REACH if beyond else None


def _write_options(job: Job) -> dict[str, Any]:
    options = {name: value for name in _PLAIN if (value := getattr(job, name)) is not None}
    for name, header in _HEADERS.items():
        value = getattr(job, name)
        if value is not None and value != header.default:
            options[name] = header.write(value)
    _read_options(options)
    return options


# ----------------------------------------------------------------------------------------- reading


def message_of(row: Row, *, now: float) -> Message | Held:
    """Read a row; raises `InvalidJob` when it cannot be published as it is."""
    due_at = _time(row.due_at)
    hold = None if due_at is None else held_until(due_at, now=now)
    if hold is not None:
        return Held(hold)
    if row.properties is not None:
        return _as_it_was(row, due_at, now)
    job = Job(
        actor=row.actor,
        id=row.job_id,
        queue=row.queue,
        due_at=due_at,
        **_read_options(_load(row.options)),
    )
    exchange, key, properties = encode(job, timestamp=now)
    return Message(exchange=exchange, routing_key=key, properties=properties)


def _as_it_was(row: Row, due_at: datetime | None, now: float) -> Message:
    """Address a message that was published before: a replay."""
    if not row.routing_key:
        raise InvalidJob(Reason.BAD_PROPERTY, "a row with properties needs a routing_key, too")
    original = pika.BasicProperties()
    try:
        original.decode(row.properties)
    except Exception as error:  # noqa: BLE001 - whatever pika stumbles over
        raise InvalidJob(
            Reason.UNREADABLE_HEADER, f"its properties cannot be read: {error!r}"
        ) from None
    exchange, key = names.JOBS, wheel.split_key(row.routing_key)[1]
    delay = timedelta(0) if due_at is None else timedelta(seconds=due_at.timestamp() - now)
    if delay > timedelta(0):
        exchange, key = names.DELAY, wheel.delayed_key(delay, key)
    if len(key.encode()) > 255:
        raise InvalidJob(Reason.BAD_PROPERTY, f"its routing key is too long: {key[:300]!r}")
    return Message(exchange=exchange, routing_key=key, properties=republished(original))


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


def _read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in _PLAIN:
            if name != "priority" and not isinstance(value, str):
                raise InvalidJob(
                    Reason.BAD_PROPERTY, f"{name} is a string, not {str(value)[:200]!r}"
                )
            fields[name] = value
            continue
        header = _HEADERS.get(name)
        if header is None:
            raise InvalidJob(
                Reason.BAD_PROPERTY,
                f"there is no option {name[:200]!r}; there are {', '.join(OPTIONS)}",
            )
        try:
            fields[name] = header.read(value)
        except (ValueError, OverflowError) as error:
            raise InvalidJob(
                Reason.BAD_HEADER, f"the option {name} is {str(value)[:200]!r}, not {error}"
            ) from None
    return fields
