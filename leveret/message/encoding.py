"""A job, written as a message."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pika

from leveret import names, wheel
from leveret.errors import InvalidJob
from leveret.message.document import CONTENT_TYPE
from leveret.message.header import HEADERS, PREFIX
from leveret.message.job import Job
from leveret.message.moment import format_time
from leveret.message.reason import Reason
from leveret.message.text import bytes_of
from leveret.message.trace import read_trace

__all__ = ["PERSISTENT", "encode"]

#: The delivery mode of a message that survives the broker.
PERSISTENT = 2


def encode(job: Job, *, timestamp: float) -> tuple[str, str, pika.BasicProperties]:
    """Write all of a job but its body: the exchange, the routing key and the properties.

    ``timestamp`` is now, in seconds since 1970; a job that is due later goes to the delay wheel.
    Raises `InvalidJob` when a field breaks the contract.
    """
    _check(job)
    headers: dict[str, Any] | None = None
    exchange, key = names.JOBS, job.key
    if job.due_at is not None:
        delay = timedelta(seconds=job.due_at.timestamp() - timestamp)
        if delay > timedelta(0):
            try:
                exchange, key = names.DELAY, wheel.delayed_key(delay, key)
            except ValueError as error:
                raise InvalidJob(Reason.BAD_PROPERTY, str(error)) from None
        headers = {f"{PREFIX}due-at": format_time(job.due_at)}
    for name, header in HEADERS.items():
        value = getattr(job, header.attribute)
        if value is not None and value != header.default and header.attribute != "due_at":
            headers = headers or {}
            headers[PREFIX + name] = header.write(value)
    if job.traceparent is not None:
        trace = read_trace({"traceparent": job.traceparent, "tracestate": job.tracestate})
        headers = {**(headers or {}), **trace} or None
    properties = pika.BasicProperties(
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        message_id=job.id,
        type=job.actor,
        timestamp=int(timestamp),
        headers=headers,
        priority=job.priority,
        correlation_id=job.correlation_id,
        app_id=job.app_id,
    )
    return exchange, key, properties


def _check(job: Job) -> None:
    if not names.is_actor_name(job.actor):
        raise InvalidJob(
            Reason.UNKNOWN_ACTOR,
            f"an actor's name is dotted words such as 'email.send', not {job.actor!r}",
        )
    if job.queue is not None and not names.is_queue_name(job.queue):
        raise InvalidJob(
            Reason.BAD_PROPERTY, f"a queue's name is one lower-case word, not {job.queue!r}"
        )
    for name in ("id", "correlation_id", "app_id", "idempotency_key", "schedule"):
        value = getattr(job, name)
        if value is None and name != "id":
            continue
        if not isinstance(value, str) or not 0 < bytes_of(value) <= 255:
            raise InvalidJob(
                Reason.BAD_PROPERTY, f"{name} is a string of 1 to 255 bytes, not {value!r}"
            )
    if job.priority is not None and not (type(job.priority) is int and 0 <= job.priority <= 255):
        raise InvalidJob(
            Reason.BAD_PROPERTY, f"priority is a whole number from 0 to 255, not {job.priority!r}"
        )
    for name in ("unique_for", "unique_until", "on_conflict"):
        value = getattr(job, name)
        header = HEADERS[name.replace("_", "-")]
        try:
            if value != header.default:
                header.read(header.write(value))
        except (AttributeError, ValueError) as error:
            raise InvalidJob(Reason.BAD_PROPERTY, f"{name} is {value!r}, not {error}") from None
    for name in ("due_at", "expires_at", "slot"):
        moment = getattr(job, name)
        if moment is not None and moment.tzinfo is None:
            raise InvalidJob(
                Reason.BAD_PROPERTY, f"{name} needs a time zone: {moment} could be any of 38 times"
            )
