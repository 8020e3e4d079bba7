"""Reading the tap: jobs as they were published. Pure."""

from __future__ import annotations

from leveret import names, wheel
from leveret.ledger.event import LONG_AGO, Content, JobEvent, Message, Standing
from leveret.ledger.state import State
from leveret.ledger.value import (
    count_in,
    headers_json,
    id_in,
    in_range,
    moment_in,
    read_envelope,
    text_in,
    wire,
)
from leveret.message import PREFIX, job_time
from leveret.message.trace import read_traceparent

__all__ = ["read_published"]


def _published_at(job_id: str, timestamp: object) -> float | None:
    """Return when a job was published; an id of ours says it to the millisecond."""
    if not isinstance(timestamp, int):
        return None
    made_at = job_time(job_id)
    if made_at is not None and 0 <= made_at - timestamp < 1:
        return round(made_at, 6)
    return in_range(timestamp)


def read_published(message: Message) -> JobEvent | None:
    """Read a job as it was published; None when nothing says which job it is.

    Lenient: whether a worker can read it is the worker's to say.
    """
    _, exchange, routing_key, properties, body, _ = message
    job_id = id_in(properties.message_id)
    actor = text_in(properties.type)
    key = routing_key
    due_at = None
    state = State.QUEUED
    delay = None
    if exchange == names.DELAY:
        delay, key = wheel.split_key(routing_key)
        state = State.SCHEDULED
    queue: str | None
    queue, _, named = key.partition(".")
    attempt, run = 1, 0
    if actor is None:
        envelope = read_envelope(body)
        if envelope is None:
            actor = named or None
        else:
            job_id, actor, due_at, attempt = envelope
    if job_id is None:
        return None
    if queue == names.ANY_QUEUE or not names.is_queue_name(queue):
        queue = None
    idempotency_key = traceparent = expires_at = None
    published_at = _published_at(job_id, properties.timestamp)
    properties_bytes = wire(properties)
    headers = properties.headers  # without what the broker adds, from here on
    if headers:
        attempt = count_in(headers.get(f"{PREFIX}attempt", attempt), 1)
        run = count_in(headers.get(f"{PREFIX}run"), 0)
        due_at = moment_in(headers.get(f"{PREFIX}due-at")) or due_at
        expires_at = moment_in(headers.get(f"{PREFIX}expires-at"))
        idempotency_key = text_in(headers.get(f"{PREFIX}idempotency-key"))
        traceparent = read_traceparent(headers.get("traceparent"))
    if state is State.SCHEDULED and due_at is None and delay is not None:
        due_at = in_range((published_at or 0) + delay.total_seconds())
    return JobEvent(
        job_id,
        "published",
        Standing(run, 0, attempt, LONG_AGO, 0, state, due_at),
        Content(
            actor,
            queue,
            key,
            text_in(properties.content_type),
            body,
            headers_json(headers),
            properties_bytes,
            properties.priority,
            text_in(properties.correlation_id),
            text_in(properties.app_id),
            idempotency_key,
            traceparent,
            expires_at,
            published_at,
        ),
    )
