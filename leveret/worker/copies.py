"""Copies of a delivery: the retry, the dead letter, the suspect.

A copy has the original's bytes and properties. What the broker itself wrote into the headers is
taken off: with the old ``x-death`` on it, the second trip through the delay wheel looks like a
cycle to the broker, which drops the message.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pika

from leveret import names, wheel
from leveret.message import PERSISTENT, PREFIX, format_time, now_plus
from leveret.outcome import Dead, Expired, Quarantine, Retry, Snooze
from leveret.worker.delivery import Delivery
from leveret.worker.failure import describe

__all__ = ["dead_letter", "delayed", "suspect"]

_BROKERS_OWN = frozenset(
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
    }
)
_MAX_HEADER_TEXT = 8_000


def _copy(delivery: Delivery, headers: dict[str, Any]) -> pika.BasicProperties:
    original = delivery.properties
    kept = {
        name: value for name, value in (original.headers or {}).items() if name not in _BROKERS_OWN
    }
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
    key = wheel.split_key(delivery.routing_key)[1]
    headers: dict[str, Any] = {f"{PREFIX}due-at": format_time(now_plus(outcome.delay))}
    delay = min(outcome.delay, wheel.HORIZON)
    if isinstance(outcome, Retry):
        headers[f"{PREFIX}attempt"] = attempt + 1
        units = wheel.round_up(wheel.units_of(delay), significant=2)
    else:
        headers[f"{PREFIX}attempt"] = attempt
        units = wheel.units_of(delay)
    return names.RETRY, f"{wheel.digits_of(units)}.{key}", _copy(delivery, headers)


def dead_letter(
    delivery: Delivery, outcome: Dead | Expired
) -> tuple[str, str, pika.BasicProperties]:
    """Address the dead letter, which says why it is one and where it came from."""
    headers: dict[str, Any] = {
        f"{PREFIX}queue": delivery.session.queue,
        f"{PREFIX}routing-key": wheel.split_key(delivery.routing_key)[1],
        f"{PREFIX}dead-at": format_time(now_plus(timedelta(0))),
    }
    match outcome:
        case Expired(detail):
            headers[f"{PREFIX}reason"] = "expired"
            headers[f"{PREFIX}error"] = detail
        case Dead(reason, error):
            headers[f"{PREFIX}reason"] = str(reason)
            description = describe(error)
            headers[f"{PREFIX}error"] = description["message"]
            headers[f"{PREFIX}error-type"] = description["type"]
            if delivery.started_at is not None:
                headers[f"{PREFIX}traceback"] = description["traceback"][-_MAX_HEADER_TEXT:]
    headers[f"{PREFIX}attempt"] = 1 if delivery.job is None else delivery.job.attempt
    return names.DEAD, delivery.session.queue, _copy(delivery, headers)


def suspect(delivery: Delivery, outcome: Quarantine) -> tuple[str, str, pika.BasicProperties]:
    """Address the copy that runs alone."""
    headers = {
        f"{PREFIX}kills": outcome.kills,
        f"{PREFIX}routing-key": wheel.split_key(delivery.routing_key)[1],
    }
    return names.QUARANTINE, delivery.session.queue, _copy(delivery, headers)
