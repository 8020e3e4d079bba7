"""Copies of a delivery: the retry, the dead letter, the suspect.

A copy has the original's bytes and properties. What the broker itself wrote into the headers is
taken off: with the old ``x-death`` on it, the second trip through the delay wheel looks like a
cycle to the broker, which drops the message.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pika

from leveret import names, wheel
from leveret.amqp.connection import Unreadable
from leveret.message import (
    BROKER_HEADERS,
    PERSISTENT,
    PREFIX,
    format_time,
    new_id,
    now_plus,
)
from leveret.message.trace import AFTER, SENT_AT, TRACE_HEADERS
from leveret.outcome import Dead, Expired, Quarantine, Retry, Returned, Snooze
from leveret.worker.delivery import KILLS_HEADER, Delivery
from leveret.worker.failure import describe

__all__ = ["dead_letter", "delayed", "returned", "suspect"]

_LEFT_OUT = BROKER_HEADERS | {KILLS_HEADER}
#: Of what comes after a run, as it says when and of which attempt the copy before was.
_OUTDATED = frozenset({AFTER, SENT_AT})
_MAX_HEADER_TEXT = 8_000
_MAX_RAW_HEADER = 60_000


def _copy(
    delivery: Delivery, headers: dict[str, Any], *, without: frozenset[str] = frozenset()
) -> pika.BasicProperties:
    original = delivery.properties
    left_out = _LEFT_OUT | without
    kept = {name: value for name, value in (original.headers or {}).items() if name not in left_out}
    job = delivery.job
    return pika.BasicProperties(
        content_type=original.content_type,
        content_encoding=original.content_encoding,
        headers={**kept, **headers},
        delivery_mode=PERSISTENT,
        priority=original.priority,
        correlation_id=original.correlation_id,
        reply_to=original.reply_to,
        message_id=job.id if job is not None and job.id_assigned else original.message_id,
        timestamp=original.timestamp,
        type=original.type,
        app_id=original.app_id,
    )


def delayed(delivery: Delivery, outcome: Retry | Snooze) -> tuple[str, str, pika.BasicProperties]:
    """Address the copy that runs again later: exchange, routing key, properties."""
    job = delivery.job
    attempt = 1 if job is None else job.attempt
    delay = min(outcome.delay, wheel.HORIZON)  # what is longer is delayed again when it comes out
    headers: dict[str, Any] = {f"{PREFIX}due-at": format_time(now_plus(outcome.delay))}
    if isinstance(outcome, Retry):
        headers[f"{PREFIX}attempt"] = attempt + 1
        units = wheel.round_up(wheel.units_of(delay), significant=2)
    else:
        headers[f"{PREFIX}attempt"] = attempt
        units = wheel.units_of(delay)
    key = f"{wheel.digits_of(units)}.{_way_back(delivery)}"
    return names.RETRY, key, _after_run(delivery, headers)


def _after_run(delivery: Delivery, headers: dict[str, Any]) -> pika.BasicProperties:
    """Copy what a run led to: what it says of its trace is new, or left out."""
    trace = {} if delivery.spans is None else delivery.spans.copied()
    return _copy(delivery, headers | trace, without=TRACE_HEADERS if trace else _OUTDATED)


def _way_back(delivery: Delivery) -> str:
    """Return the routing key that brings a job back to an actor's queue.

    That is its own key where this is the usual one. Any other may be too long with the digits of
    a delay in front, or refused to workers, or lead elsewhere: then the queue it came from.
    """
    key = wheel.split_key(delivery.routing_key)[1]
    job = delivery.job
    if job is None or key == f"{names.ANY_QUEUE}.{job.actor}":
        return key
    return f"{delivery.session.queue}.{job.actor}"


def dead_letter(
    delivery: Delivery, outcome: Dead | Expired
) -> tuple[str, str, pika.BasicProperties]:
    """Address the dead letter, which says why it is one and where it came from."""
    headers: dict[str, Any] = {
        f"{PREFIX}queue": delivery.session.queue,
        f"{PREFIX}routing-key": wheel.split_key(delivery.routing_key)[1],
        f"{PREFIX}dead-at": format_time(now_plus(timedelta(0))),
        # The same letter delivered twice is one; two letters of one job are two.
        f"{PREFIX}dead-id": new_id(),
    }
    match outcome:
        case Expired(detail):
            headers[f"{PREFIX}reason"] = "expired"
            headers[f"{PREFIX}error"] = detail
        case Dead(reason, error):
            headers[f"{PREFIX}reason"] = str(reason)
            description = describe(error)
            headers[f"{PREFIX}error"] = _utf8(description["message"])
            headers[f"{PREFIX}error-type"] = _utf8(description["type"])
            if delivery.started_at is not None:
                text = description["traceback"][-_MAX_HEADER_TEXT:]
                headers[f"{PREFIX}traceback"] = _utf8(text)
    headers[f"{PREFIX}attempt"] = 1 if delivery.job is None else delivery.job.attempt
    if isinstance(delivery.properties, Unreadable):
        # As it is, it would stop the next reader, too.
        raw = delivery.properties.raw[:_MAX_RAW_HEADER]
        headers[f"{PREFIX}unreadable-header"] = base64.b64encode(raw).decode()
    return names.DEAD, delivery.session.queue, _after_run(delivery, headers)


def _utf8(text: str) -> str:
    """Escape what UTF-8 cannot write, such as half a character in the name of a file."""
    return text.encode(errors="backslashreplace").decode()


def returned(delivery: Delivery, outcome: Returned) -> tuple[str, str, pika.BasicProperties]:
    """Address the copy that goes back to its queue: through the wheel, with a delay of nothing."""
    headers: dict[str, Any] = {}
    if outcome.kills:
        headers[KILLS_HEADER] = outcome.kills
    key = f"{wheel.digits_of(0)}.{wheel.split_key(delivery.routing_key)[1]}"
    return names.RETRY, key, _copy(delivery, headers)


def suspect(delivery: Delivery, outcome: Quarantine) -> tuple[str, str, pika.BasicProperties]:
    """Address the copy that runs alone."""
    headers = {
        KILLS_HEADER: outcome.kills,
        f"{PREFIX}routing-key": wheel.split_key(delivery.routing_key)[1],
    }
    return names.QUARANTINE, delivery.session.queue, _copy(delivery, headers)
