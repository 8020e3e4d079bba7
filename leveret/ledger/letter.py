"""Reading dead letters: a worker's, the broker's, and what no queue wanted. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

import pika

from leveret import names, wheel
from leveret.amqp.connection import Unreadable
from leveret.ledger.event import LONG_AGO, DeadLetterEvent, JobEvent, Kind, Message, Standing
from leveret.ledger.fingerprint import fingerprint
from leveret.ledger.state import State
from leveret.ledger.value import (
    VOLATILE,
    count_in,
    headers_json,
    id_in,
    in_range,
    moment_in,
    read_envelope,
    text_in,
    wire,
)
from leveret.message import PREFIX

__all__ = ["read_dead_letter"]

#: Headers that a worker's dead letter has and its original had not.
_ADDED = frozenset(
    PREFIX + name
    for name in (
        "queue",
        "routing-key",
        "dead-at",
        "dead-id",
        "reason",
        "error",
        "error-type",
        "traceback",
        "unreadable-header",
    )
)


class _Death(NamedTuple):
    """What is known of how a message died."""

    reason: str
    routing_key: str
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    queue: str | None = None
    exchange: str | None = None
    at: float | None = None
    #: The name that the worker gave to the letter.
    id: str | None = None


def read_dead_letter(
    message: Message, *, received_at: float
) -> tuple[DeadLetterEvent, JobEvent | None]:
    """Read a dead letter, and what it means for its job, if it says which that is.

    Never fails for what a letter says: it is kept with its bytes whatever they are.
    """
    properties, body = message.properties, message.body
    headers: Mapping[str, Any] = properties.headers or {}
    by_worker = (
        message.exchange == names.DEAD
        and not headers.get("x-death")
        and isinstance(headers.get(f"{PREFIX}reason"), str)
    )
    death = _told_by_worker(message, headers) if by_worker else _told_by_broker(message, headers)
    job_id = id_in(properties.message_id)
    actor = text_in(properties.type)
    if actor is None:
        envelope = read_envelope(body)
        if envelope is not None:
            job_id, actor = envelope.id, envelope.actor
        else:
            actor = death.routing_key.partition(".")[2] or None
    run = count_in(headers.get(f"{PREFIX}run"), 0)
    attempt = count_in(headers.get(f"{PREFIX}attempt"), 1)
    dead_at = death.at or round(received_at, 6)
    original, shown = _original(properties, by_worker=by_worker)
    letter = DeadLetterEvent(
        key=death.id or _digest(message),
        key_is_digest=death.id is None,
        redelivered=message.redelivered,
        job_id=job_id,
        run=run,
        attempt=attempt,
        actor=actor,
        queue=death.queue,
        routing_key=death.routing_key,
        exchange=death.exchange,
        reason=death.reason,
        error_type=death.error_type,
        error=death.error,
        traceback=death.traceback,
        fingerprint=fingerprint(
            actor=actor,
            reason=death.reason,
            error_type=death.error_type,
            error=death.error,
            trace=death.traceback,
        ),
        body=body,
        properties=original,
        headers=shown,
        dead_at=dead_at,
    )
    if job_id is None:
        return letter, None
    expired = death.reason == "expired"
    # Of the same death, the worker's record knows more: that counts as the newer event.
    standing = Standing(
        run=run,
        settled=1,
        attempt=attempt,
        event_at=LONG_AGO,
        kind=Kind.EXPIRED if expired else Kind.DEAD,
        state=State.EXPIRED if expired else State.DEAD,
        finished_at=dead_at,
        reason=death.reason,
        error_type=death.error_type,
        error=death.error,
    )
    return letter, JobEvent(job_id, "dead_letter", standing, actor=actor, queue=death.queue)


def _told_by_worker(message: Message, headers: Mapping[str, Any]) -> _Death:
    key = text_in(headers.get(f"{PREFIX}routing-key"))
    named = headers.get(f"{PREFIX}dead-id")
    return _Death(
        reason=str(headers[f"{PREFIX}reason"])[:100] or "unknown",
        routing_key=key or message.routing_key,
        error_type=text_in(headers.get(f"{PREFIX}error-type")),
        error=text_in(headers.get(f"{PREFIX}error")),
        traceback=text_in(headers.get(f"{PREFIX}traceback")),
        queue=text_in(headers.get(f"{PREFIX}queue")),
        at=moment_in(headers.get(f"{PREFIX}dead-at")),
        id=named if id_in(named) == named else None,
    )


def _told_by_broker(message: Message, headers: Mapping[str, Any]) -> _Death:
    key = wheel.split_key(message.routing_key)[1]
    if message.queue == names.UNROUTABLE:
        return _Death(
            reason="unroutable",
            routing_key=key,
            error=f"{message.exchange} has no queue for the routing key {key[:300]!r}",
            exchange=message.exchange or None,
        )
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(death, dict):
        return _Death(reason="unknown", routing_key=key, exchange=message.exchange or None)
    reason = (text_in(death.get("reason")) or "unknown").replace("_", "-")[:100]
    queue = (text_in(death.get("queue")) or "").removeprefix(f"{names.QUARANTINE}.")
    keys = death.get("routing-keys")
    first = text_in(keys[0]) if isinstance(keys, list) and keys else None
    return _Death(
        reason=reason,
        routing_key=wheel.split_key(first or key)[1],
        error=f"the broker gave it up: {reason}",
        queue=queue.removeprefix("leveret.") or None,
        exchange=text_in(death.get("exchange")),
        at=_broker_time(death.get("time")),
    )


def _broker_time(value: object) -> float | None:
    """Read an AMQP timestamp, which pika reads as naive UTC."""
    if isinstance(value, datetime):
        return in_range((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return None


def _original(properties: pika.BasicProperties, *, by_worker: bool) -> tuple[bytes, str | None]:
    """Return the properties that a message had before it died: encoded, and its headers."""
    headers = properties.headers
    if not by_worker:
        if isinstance(properties, Unreadable):
            return properties.raw, None
        encoded = wire(properties)
        return encoded, headers_json(properties.headers)
    raw = headers.get(f"{PREFIX}unreadable-header")
    if isinstance(raw, str):
        try:
            return base64.b64decode(raw, validate=True), None
        except (ValueError, binascii.Error):
            pass
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _ADDED and name not in VOLATILE
    }
    shown = headers_json(kept)
    wanted = pika.BasicProperties()
    wanted.__dict__.update(properties.__dict__)
    wanted.__dict__.pop("raw", None)
    wanted.headers = kept or None
    return wire(wanted), shown


def _digest(message: Message) -> str:
    """Name a message by what it is: the same in each delivery of it."""
    properties = message.properties
    parts: list[object] = [message.queue, message.routing_key]
    for name, value in sorted(vars(properties).items()):
        if name == "headers" and value:
            kept = {k: v for k, v in value.items() if k not in VOLATILE}
            value = sorted(kept.items(), key=lambda item: str(item[0]))  # noqa: PLW2901
        if name not in ("raw", "cause") or isinstance(properties, Unreadable):
            parts.append((name, repr(value)))
    state = sha256(repr(parts).encode(errors="backslashreplace"))
    state.update(message.body)
    return f"digest:{state.hexdigest()}"
