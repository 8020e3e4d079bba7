"""Outcome records: what the ledger learns of a run.

Records travel in groups, one AMQP message for all that is committed together, published to
``leveret.outcomes``: ``{"v": 1, "worker": "…", "records": [{…}, …]}``. Each record names its job,
and what happened:

========================  =====================================================================
``event``                 started, succeeded, retrying, snoozed, dead, expired, cancelled,
                          quarantined, progress, or heartbeat
``id actor queue``        the job, the actor and the pool; null for a message that names no job
``attempt run``           1 for the first attempt; 0 (left out) until the job is replayed
``started_at ended_at``   seconds since 1970
``due_at``                retrying, snoozed: when it runs again
``reason error``          dead, expired, retrying: a word, and ``{type, message, traceback}``
``result``                succeeded: what the actor returned; or ``result_ref``, where it is
                          kept; or ``result_lost``, why it is not
``done_by``               succeeded: the other job that had the effects of this one
``why``                   snoozed, expired, cancelled: in words
``progress note at``      progress: from 0 to 1, what the actor said to it, and when
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
from leveret.worker.failure import describe, kind_of, message_of

if TYPE_CHECKING:
    from leveret.context import Report
    from leveret.results.store import ResultStore
    from leveret.worker.delivery import Delivery

__all__ = [
    "MAX_RESULT_BYTES",
    "encode_group",
    "encode_record",
    "event_of",
    "heartbeat",
    "keep_result",
    "progress",
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
        record["id"] = delivery.label if delivery.has_id else None
    if delivery.started_at is not None:
        record["started_at"] = delivery.started_at
        record["ended_at"] = delivery.ended_at
    else:
        record["ended_at"] = now
    _add_outcome(record, outcome, now)
    return _encode(record).encode()


def _add_outcome(record: dict[str, Any], outcome: Outcome, now: float) -> None:
    match outcome:
        case Succeeded():
            _add_result(record, outcome)
            if outcome.done_by is not None:
                record["done_by"] = outcome.done_by
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
        case Cancelled(detail) if detail:
            record["why"] = detail
        case Quarantine(kills):
            record["kills"] = kills


def _add_result(record: dict[str, Any], outcome: Succeeded) -> None:
    if outcome.ref is not None:
        record["result_ref"] = outcome.ref
    if outcome.lost is not None:
        record["result_lost"] = outcome.lost
    if outcome.result is None:
        return
    try:
        text = _encode(outcome.result)
    except Exception as error:  # noqa: BLE001 - a result may fail at being read in any way
        record["result_lost"] = f"JSON cannot write it: {describe(error)}"[:200]
        return
    if len(text) > MAX_RESULT_BYTES:
        record["result_lost"] = (
            f"it has {len(text)} bytes; {MAX_RESULT_BYTES} are the limit, unless the workers have "
            "a LEVERET_RESULT_STORE"
        )
    else:
        record["result"] = outcome.result


def keep_result(delivery: Delivery, outcome: Succeeded, store: ResultStore) -> Succeeded:
    """Put a result that is too large for a record into the store. For the worker thread.

    The job has done its work by now: a store that does not take the result loses it, and no more.
    """
    job = delivery.job
    if job is None or outcome.result is None:
        return outcome
    try:
        text = _encode(outcome.result)
    except Exception:  # noqa: BLE001 - told by the record
        return outcome
    if len(text) <= MAX_RESULT_BYTES:
        return outcome
    try:
        return Succeeded(ref=store.put(job.id, job.run, job.attempt, text.encode()))
    except Exception as error:  # noqa: BLE001 - a file system may fail in any way
        return Succeeded(
            lost=f"LEVERET_RESULT_STORE does not take it: {kind_of(error)}: {message_of(error)}"
        )


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


def progress(delivery: Delivery, report: Report) -> bytes:
    """Write how far a job has come."""
    job = delivery.job
    record: dict[str, Any] = {
        "event": "progress",
        "id": delivery.label,
        "actor": None if job is None else job.actor,
        "queue": delivery.session.queue,
        "attempt": 1 if job is None else job.attempt,
        "at": report.at,
        "progress": report.progress,
        "note": report.note,
    }
    if job is not None and job.run:
        record["run"] = job.run
    return _encode(record).encode()


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
