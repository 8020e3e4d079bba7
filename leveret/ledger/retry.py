"""Having a job run again that has ended without success.

Three ways, and which it is follows from the job:

- A dead letter of it is open: it is replayed (`leveret.deadletters`), and then counts as replayed.
- There is none (it was cancelled, or its dead letter was discarded): the job is published anew from
  what the ledger keeps of it, through the outbox, and is ``queued`` again with the same commit.
- It was cancelled before it was even sent, so that nobody has seen its message: the same, with the
  message made from what the outbox had.

The job keeps its id, its history and its arguments; its ``run`` is one higher, which is newer than
whatever may still be said of the run before, and which no cancellation of that run holds for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.engine import Connection

from leveret.deadletters import LetterState, Selection, create_replay
from leveret.deadletters.copy import Unfit, revived
from leveret.errors import ReplayRefused
from leveret.ledger import watch
from leveret.ledger.answer import Answer, conclude
from leveret.ledger.requeue import Rerun, requeue
from leveret.ledger.state import State
from leveret.message import HEADERS, PREFIX
from leveret.store.identity import find_times, is_storable

__all__ = ["RetryOutcome", "RetryResult", "republish", "retry"]

_JOB = text(
    "SELECT id AS job_id, created_at, state, run, actor, queue, routing_key, body, properties,"
    " headers, priority, correlation_id, app_id, traceparent, due_at, clock_timestamp() AS now"
    " FROM jobs WHERE id = :id AND created_at = :created_at FOR UPDATE"
)
_LETTER = text(
    "SELECT id, state, replay_id FROM dead_letters"
    " WHERE job_id = :id AND run = :run AND state IN ('open', 'replaying')"
    " ORDER BY id DESC LIMIT 1"
)
_IN_OUTBOX = text("SELECT 1 FROM leveret_outbox WHERE job_id = :id LIMIT 1")
_PUBLISH = text(
    "INSERT INTO leveret_outbox (job_id, actor, queue, body, options, properties, routing_key,"
    " due_at) VALUES (:job_id, :actor, :queue, :body, CAST(:options AS json), :properties,"
    " :routing_key, :due_at)"
)
#: What a message of the outbox keeps of the first one.
_KEPT = ("priority", "correlation_id", "app_id", "traceparent")
_COUNTED_ANEW = frozenset({"attempt", "run", "due-at", "expires-at"})


class RetryOutcome(StrEnum):
    """What came of a wish to run a job again."""

    #: It is queued.
    QUEUED = "queued"
    #: Its dead letter is being replayed, and it is queued in a moment.
    REPLAYING = "replaying"
    #: It has not ended, has succeeded, or cannot be published.
    REFUSED = "refused"
    #: There is no such job, as far as the ledger knows.
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryResult(Answer[RetryOutcome]):
    """What came of a wish to run one job again; its state and run are those that it had before."""

    replay_id: int | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the job runs again."""
        return self.outcome in (RetryOutcome.QUEUED, RetryOutcome.REPLAYING)


def retry(
    connection: Connection, job_id: str, *, by: str, address: str | None = None
) -> RetryResult:
    """Have a job run again that is dead, cancelled or expired, in the caller's transaction.

    Writes into ``audit_log`` who (``by``) wanted it, also when it is refused. On an asyncio
    connection: ``await connection.run_sync(retry, job_id, by=…)``.
    """
    job = None
    if is_storable(job_id) and (times := find_times(connection, [job_id])):
        job = connection.execute(_JOB, {"id": job_id, "created_at": times[job_id]}).one_or_none()
    if job is None:
        result = RetryResult(
            job_id=job_id,
            outcome=RetryOutcome.UNKNOWN,
            state=None,
            run=0,
            detail="the ledger does not know such a job",
        )
    else:
        result = _retry(connection, job, by, address)
    conclude(connection, result, action="job.retry", by=by, address=address)
    return result


def _retry(connection: Connection, job: Row[Any], by: str, address: str | None) -> RetryResult:
    outcome, replay_id = RetryOutcome.REFUSED, None
    state = State(job.state)
    if not state.is_terminal:
        detail = f"it has not ended: it is {state}"
    elif state is State.SUCCEEDED:
        detail = "it has succeeded; publish a new job to do it again"
    elif letter := connection.execute(_LETTER, {"id": job.job_id, "run": job.run}).one_or_none():
        replay_id = letter.replay_id
        if letter.state == LetterState.REPLAYING:
            detail = f"replay {replay_id} is about to run it again"
        else:
            selection = Selection(ids=(letter.id,))
            try:
                with connection.begin_nested():
                    replay_id = create_replay(
                        connection, selection, requested_by=by, address=address
                    ).id
            except ReplayRefused as error:  # somebody else was faster
                detail = str(error)
            else:
                outcome, detail = RetryOutcome.REPLAYING, f"replay {replay_id} runs it again"
    else:
        try:
            _publish(connection, job)
        except Unfit as error:
            detail = str(error)
        else:
            outcome, detail = RetryOutcome.QUEUED, f"it is queued again, as run {job.run + 1}"
    return RetryResult(
        job_id=job.job_id,
        outcome=outcome,
        state=state,
        run=job.run,
        detail=detail,
        replay_id=replay_id,
    )


def republish(connection: Connection, job_id: str) -> bool:
    """Publish a live job again of which no queue has a message, as its next run; tell whether.

    In the caller's transaction. Not when the job has ended meanwhile, when its message is still in
    the outbox, or when the ledger has no copy of it. One that is not due yet waits for that.
    """
    times = find_times(connection, [job_id])
    if not times:
        return False
    job = connection.execute(_JOB, {"id": job_id, "created_at": times[job_id]}).one_or_none()
    if job is None or State(job.state).is_terminal:
        return False
    if connection.execute(_IN_OUTBOX, {"id": job_id}).first() is not None:
        return False
    try:
        _publish(
            connection, job, due_at=job.due_at if job.due_at and job.due_at > job.now else None
        )
    except Unfit:
        return False
    watch.notify(connection, [job_id])
    return True


def _publish(connection: Connection, job: Row[Any], *, due_at: datetime | None = None) -> None:
    """Publish a job again through the outbox; raises `Unfit`."""
    if job.actor is None or job.body is None:
        raise Unfit("the ledger has not seen what was published, only what became of it")
    connection.execute(_PUBLISH, _message(job) | {"due_at": due_at})
    requeue(connection, [Rerun(job.job_id, job.created_at, job.run + 1, due_at)])


def _message(job: Row[Any]) -> dict[str, Any]:
    """Write the row of the outbox that publishes a job again; raises `Unfit`."""
    row: dict[str, Any] = {
        "job_id": job.job_id,
        "actor": job.actor,
        "queue": job.queue,
        "body": job.body,
        "options": None,
        "properties": None,
        "routing_key": None,
    }
    if job.properties is not None and job.routing_key is not None:
        copy = revived(job, job_id=job.job_id, now=job.now)
        return row | {
            "actor": copy.actor,
            "properties": copy.properties,
            "routing_key": copy.routing_key,
        }
    options = {name: value for name in _KEPT if (value := getattr(job, name)) is not None}
    options |= _kept_headers(job.headers or {}, job.now)
    return row | {"options": json.dumps(options | {"run": job.run + 1})}


def _kept_headers(headers: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the options that headers stand for; a time to expire that has passed is left out."""
    kept = {}
    for name, header in HEADERS.items():
        value = headers.get(f"{PREFIX}{name}")
        if value is not None and name not in _COUNTED_ANEW:
            kept[header.attribute] = value
    expires = headers.get(f"{PREFIX}expires-at")
    if isinstance(expires, str):
        try:
            if datetime.fromisoformat(expires) > now:
                kept["expires_at"] = expires
        except (ValueError, TypeError):
            return kept  # it is no time, and would be refused
    return kept
