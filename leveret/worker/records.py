"""Outcome records: what the ledger learns of a run.

Records travel in groups, one AMQP message for all that is committed together, published to
``leveret.outcomes``: ``{"v": 1, "worker": "…", "records": [{…}, …]}``. Each record names its job,
and what happened:

========================  =====================================================================
``event``                 started, succeeded, retrying, snoozed, dead, expired, cancelled,
                          quarantined, or heartbeat
``id actor queue``        the job, the actor and the pool
``attempt run``           1 for the first attempt; 0 (left out) until the job is replayed
``started_at ended_at``   seconds since 1970
``due_at``                retrying, snoozed: when it runs again
``reason error``          dead, expired, retrying: a word, and ``{type, message, traceback}``
``result``                succeeded: what the actor returned
========================  =====================================================================
"""

from __future__ import annotations

import json
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
    Returned,
    Snooze,
    Succeeded,
)
from leveret.worker.failure import describe

if TYPE_CHECKING:
    from leveret.worker.delivery import Delivery

__all__ = [
    "MAX_RESULT_BYTES",
    "encode_group",
    "encode_record",
    "event_of",
    "heartbeat",
    "started",
]

#: Results larger than this are not kept.
MAX_RESULT_BYTES = 64 * 1024

_encode = json.JSONEncoder(separators=(",", ":"), default=plain, allow_nan=False).encode


_EVENTS: dict[type[Outcome], str] = {
    Succeeded: "succeeded",
    Retry: "retrying",
    Snooze: "snoozed",
    Dead: "dead",
    Expired: "expired",
    Cancelled: "cancelled",
    Quarantine: "quarantined",
    Returned: "returned",
}


def event_of(outcome: Outcome) -> str:
    """Name what happened."""
    return _EVENTS[type(outcome)]


def encode_record(delivery: Delivery, outcome: Outcome, now: float) -> bytes:
    """Write what became of a delivery as one JSON object."""
    record: dict[str, Any] = {"event": event_of(outcome), "queue": delivery.session.queue}
    job = delivery.job
    if job is not None:
        record["id"] = job.id
        record["actor"] = job.actor
        record["attempt"] = job.attempt
        if job.run:
            record["run"] = job.run
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
            record["error"] = describe(error)
        case Snooze(delay, why):
            record["due_at"] = now + delay.total_seconds()
            record["why"] = why
        case Dead(reason, error):
            record["reason"] = reason
            record["error"] = describe(error)
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
            "run": 0 if job is None else job.run,
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
