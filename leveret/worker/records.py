"""Outcome records: what the ledger learns of a run.

Records travel in groups, one AMQP message for all that is committed together, published to
``leveret.outcomes``: ``{"v": 1, "worker": "…", "records": [{…}, …]}``. Each record names its job,
and what happened:

========================  =====================================================================
``event``                 started, succeeded, retrying, snoozed, dead, expired, cancelled,
                          quarantined, or heartbeat
``id actor queue``        the job, the actor and the pool
``attempt``               1 for the first run
``started_at ended_at``   seconds since 1970
``due_at``                retrying, snoozed: when it runs again
``reason error``          dead, expired, retrying: a word, and ``{type, message, traceback}``
``result``                succeeded: what the actor returned
========================  =====================================================================
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leveret.message import plain
from leveret.outcome import (
    Cancelled,
    Dead,
    Expired,
    Outcome,
    Quarantine,
    Retry,
    Snooze,
    Succeeded,
)

if TYPE_CHECKING:
    from leveret.worker.delivery import Delivery

__all__ = [
    "MAX_RESULT_BYTES",
    "describe",
    "describe_error",
    "encode_group",
    "encode_record",
    "event_of",
    "heartbeat",
    "started",
]

#: Results larger than this are not kept.
MAX_RESULT_BYTES = 64 * 1024
_MAX_MESSAGE = 2_000
_MAX_TRACEBACK = 8_000

_encode = json.JSONEncoder(separators=(",", ":"), default=plain, allow_nan=False).encode


def event_of(outcome: Outcome) -> str:
    """Name what happened."""
    match outcome:
        case Succeeded():
            return "succeeded"
        case Retry():
            return "retrying"
        case Snooze():
            return "snoozed"
        case Dead():
            return "dead"
        case Expired():
            return "expired"
        case Cancelled():
            return "cancelled"
        case Quarantine():
            return "quarantined"


def describe_error(error: BaseException) -> dict[str, str]:
    """Write an exception down: its type, its message and the frames that led to it."""
    kind = type(error)
    try:
        frames = traceback.format_exception(error)
    except Exception:  # noqa: BLE001 - as its text may fail, so may its traceback
        frames = [f"(the traceback of {kind.__qualname__} cannot be written)"]
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": describe(error)[:_MAX_MESSAGE],
        "traceback": "".join(frames)[-_MAX_TRACEBACK:],
    }


def describe(error: BaseException) -> str:
    """Return what an exception says, even when it fails at saying it."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception may fail at describing itself
        return f"({type(error).__name__} has no text)"


def encode_record(delivery: Delivery, outcome: Outcome, now: float) -> bytes:
    """Write what became of a delivery as one JSON object."""
    record: dict[str, Any] = {"event": event_of(outcome), "queue": delivery.session.queue}
    job = delivery.job
    if job is not None:
        record["id"] = job.id
        record["actor"] = job.actor
        record["attempt"] = job.attempt
    else:
        record["id"] = delivery.label
    if delivery.started_at is not None:
        record["started_at"] = delivery.started_at
        record["ended_at"] = delivery.ended_at
    else:
        record["ended_at"] = now
    match outcome:
        case Succeeded(result) if result is not None:
            _add_result(record, result)
        case Retry(delay, error):
            record["due_at"] = now + delay.total_seconds()
            record["error"] = describe_error(error)
        case Snooze(delay, why):
            record["due_at"] = now + delay.total_seconds()
            record["why"] = why
        case Dead(reason, error):
            record["reason"] = reason
            record["error"] = describe_error(error)
        case Expired(detail):
            record["reason"] = "expired"
            record["why"] = detail
        case Quarantine(kills):
            record["kills"] = kills
    return _encode(record).encode()


def _add_result(record: dict[str, Any], result: object) -> None:
    try:
        text = _encode(result)
    except Exception as error:  # noqa: BLE001 - a result may fail at being read in any way
        record["result_lost"] = f"JSON cannot write it: {describe(error)}"[:200]
        return
    if len(text) > MAX_RESULT_BYTES:
        record["result_lost"] = f"it has {len(text)} bytes; {MAX_RESULT_BYTES} are the limit"
    else:
        record["result"] = result


def encode_group(worker: str, records: list[bytes]) -> bytes:
    """Put records together into the body of one message."""
    return b'{"v":1,"worker":%s,"records":[%s]}' % (
        json.dumps(worker).encode(),
        b",".join(records),
    )


def started(delivery: Delivery) -> bytes:
    """Write that a job is running."""
    job = delivery.job
    return _encode(
        {
            "event": "started",
            "id": delivery.label,
            "actor": None if job is None else job.actor,
            "queue": delivery.session.queue,
            "attempt": 1 if job is None else job.attempt,
            "started_at": delivery.started_at,
        }
    ).encode()


def heartbeat(queues: Sequence[str], threads: int, running: list[str], now: float) -> bytes:
    """Write that a worker is alive, and what it runs."""
    return _encode(
        {
            "event": "heartbeat",
            "queues": queues,
            "threads": threads,
            "running": running,
            "at": now,
        }
    ).encode()
