"""Reading outcome records: what workers did (`leveret.worker.records` writes them). Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from leveret.ledger.event import (
    LONG_AGO,
    AttemptEvent,
    Beat,
    Event,
    JobEvent,
    Kind,
    Malformed,
    Progress,
    Standing,
)
from leveret.ledger.state import State
from leveret.ledger.value import MAX_COUNT, id_in, in_range, storable

__all__ = ["read_records"]

_Record = Mapping[str, Any]

_MAX_NAME = 255
_MAX_TEXT = 100_000


class _Subject(NamedTuple):
    """Whom a record is about."""

    id: str
    actor: str | None
    queue: str | None
    run: int
    attempt: int
    worker: str


def read_records(body: bytes) -> Iterator[Event | Malformed]:
    """Read a group of records; one that is malformed does not spoil the others.

    Raises `Malformed` when it is no group at all.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("records"), list):
        raise Malformed("the body is not an object with a list of records")
    if document.get("v") != 1:
        raise Malformed(f"records of version {document.get('v')!r:.50} are not known here")
    worker = _name(document.get("worker"))
    if worker is None:
        raise Malformed("the group does not name its worker")
    for record in document["records"]:
        try:
            event = _read(record, worker)
        except Malformed as error:
            yield error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            yield Malformed(f"the record {record!r:.200} cannot be read: {error!r}")
        else:
            if event is not None:
                yield event


def _read(record: _Record, worker: str) -> Event | None:
    event = record["event"]
    if event == "heartbeat":
        return _beat(record, worker)
    reader = _READERS.get(event)
    if reader is None:
        raise Malformed(f"the event {event!r:.50} is not known here")
    if record["id"] is None:
        return None  # of a message that names no job; its dead letter tells of it
    job_id = id_in(record["id"])
    if job_id is None:
        raise Malformed(f"{record['id']!r:.50} is not the id of a job")
    return reader(
        record,
        _Subject(
            job_id,
            _name(record.get("actor")),
            _name(record.get("queue")),
            _number(record, "run", 0) if "run" in record else 0,
            _number(record, "attempt", 1),
            worker,
        ),
    )


# --------------------------------------------------------------------------------- single values


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = in_range(value)
        if seconds is not None:
            return seconds
    raise Malformed(f"{value!r:.50} is not a time in seconds since 1970")


def _number(record: _Record, name: str, least: int) -> int:
    value = record.get(name, least)
    if type(value) is int and least <= value <= MAX_COUNT:
        return value
    raise Malformed(f"{name} is {value!r:.50}, not a whole number from {least} to {MAX_COUNT}")


def _name(value: object) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= _MAX_NAME):
        return value or None
    raise Malformed(f"{value!r:.50} is not a name")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value[:_MAX_TEXT] if value else None
    raise Malformed(f"{value!r:.50} is not a text")


def _error(record: _Record) -> tuple[str | None, str | None, str | None]:
    """Return the type, the message and the traceback of what went wrong."""
    error = record.get("error")
    if error is None:
        return None, _text(record.get("why")), None
    return _text(error["type"]), _text(error["message"]), _text(error.get("traceback"))


# ---------------------------------------------------------------------------------- kinds of them

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _succeeded(record: _Record, subject: _Subject) -> JobEvent:
    job_id, actor, queue, run, attempt, worker = subject
    ended_at = _seconds(record["ended_at"])
    started_at = _seconds(record.get("started_at", ended_at))
    result = _to_json(record["result"]) if "result" in record else None
    ref = _text(record.get("result_ref"))
    lost = _text(record.get("result_lost"))
    return JobEvent(
        job_id,
        "succeeded",
        # By position, which takes a third of the time: this is what most records are.
        Standing(
            run, 2, attempt, ended_at, 9, "succeeded",
            None, started_at, ended_at, worker, None, None, None, result, ref, lost,
        ),
        None,
        actor,
        queue,
        AttemptEvent(run, attempt, started_at, 9, ended_at, None, "succeeded", worker, queue),
    )  # fmt: skip


def _running(subject: _Subject, *, at: float, started_at: float | None) -> Standing:
    return Standing(
        run=subject.run,
        settled=0,
        attempt=subject.attempt,
        event_at=at,
        kind=Kind.STARTED,
        state=State.RUNNING,
        started_at=started_at,
        worker=subject.worker,
    )


def _started(record: _Record, subject: _Subject) -> JobEvent:
    started_at = _seconds(record["started_at"])
    return JobEvent(
        subject.id,
        "started",
        _running(subject, at=started_at, started_at=started_at),
        actor=subject.actor,
        queue=subject.queue,
        attempt=AttemptEvent(
            run=subject.run,
            attempt=subject.attempt,
            started_at=started_at,
            rank=Kind.STARTED,
            outcome="running",
            worker=subject.worker,
            queue=subject.queue,
        ),
    )


#: Of each other outcome: how settled the job is then, its kind, and the job's state.
_OUTCOMES: Mapping[str, tuple[int, Kind, State]] = {
    "retrying": (0, Kind.RETRYING, State.RETRYING),
    "snoozed": (0, Kind.SNOOZED, State.SCHEDULED),
    "quarantined": (0, Kind.QUARANTINED, State.QUEUED),
    "dead": (1, Kind.DEAD, State.DEAD),
    "expired": (1, Kind.EXPIRED, State.EXPIRED),
    "cancelled": (1, Kind.CANCELLED, State.CANCELLED),
}


def _ended(record: _Record, subject: _Subject) -> JobEvent:
    outcome = record["event"]
    settled, kind, state = _OUTCOMES[outcome]
    ended_at = _seconds(record["ended_at"])
    started = record.get("started_at")
    started_at = None if started is None else _seconds(started)
    due_at = _seconds(record["due_at"]) if "due_at" in record else None
    reason = _name(record.get("reason"))
    error_type, error, trace = _error(record)
    return JobEvent(
        subject.id,
        outcome,
        Standing(
            run=subject.run,
            settled=settled,
            attempt=subject.attempt,
            event_at=ended_at,
            kind=kind,
            state=state,
            due_at=due_at,
            started_at=started_at,
            finished_at=ended_at if settled else None,
            worker=None if kind is Kind.QUARANTINED else subject.worker,
            reason=reason,
            error_type=error_type,
            error=error,
        ),
        actor=subject.actor,
        queue=subject.queue,
        attempt=AttemptEvent(
            run=subject.run,
            attempt=subject.attempt,
            started_at=ended_at if started_at is None else started_at,
            rank=kind,
            ended_at=ended_at,
            due_at=due_at,
            outcome=outcome,
            worker=subject.worker,
            queue=subject.queue,
            reason=reason,
            error_type=error_type,
            error=error,
            traceback=trace,
        ),
    )


def _progress(record: _Record, subject: _Subject) -> JobEvent:
    share = record["progress"]
    if not isinstance(share, int | float) or isinstance(share, bool) or not math.isfinite(share):
        raise Malformed(f"the progress {share!r:.50} is not a number")
    return JobEvent(
        subject.id,
        "progress",
        # That it runs, and no more: when it started is the started record's to say.
        _running(subject, at=LONG_AGO, started_at=None),
        actor=subject.actor,
        queue=subject.queue,
        progress=Progress(
            _seconds(record["at"]), min(1.0, max(0.0, float(share))), _text(record.get("note"))
        ),
    )


_READERS = {
    "succeeded": _succeeded,
    "started": _started,
    "progress": _progress,
    **dict.fromkeys(_OUTCOMES, _ended),
}


def _beat(record: _Record, worker: str) -> Beat:
    queues, running = record["queues"], record["running"]
    for listed in (queues, running):
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise Malformed(f"{listed!r:.50} is not a list of names")
    return Beat(
        storable(worker),
        [word for name in queues if (word := id_in(name))],
        _number(record, "threads", 0),
        [word for name in running if (word := id_in(name))],
        _seconds(record["at"]),
    )
