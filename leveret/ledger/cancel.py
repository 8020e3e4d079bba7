"""Calling a job off before it starts.

Who cancels writes into PostgreSQL and then tells the workers (`leveret.control`):

1. `cancel`, in one transaction: a row in ``cancellations``, for the run in which the job is. If the
   job waits in the outbox still, its row there is deleted. If that was so, or if the job is not due
   yet, it is ``cancelled`` in the ledger at once; a copy of it may still be in the delay wheel.
   Otherwise some worker may be about to start it, and only a worker can say that it will not:
   the job has been asked to stop (``cancel_requested_at``), and stays in its state.
2. After the commit, the control message: every worker process holds the id. Whichever gets the job
   ends it as cancelled; if one had started it before, it runs to its end.
3. The recorder learns from a worker how the job has ended, and closes the row.

A worker that was not connected at the second step reads the open rows when it comes back, and does
so before it takes jobs. So a lost message delays nothing but the answer, and a job ends once:
cancelled without having run, or by its run.

The row holds for its run and those before, and is kept at least until no copy of the job can come
out of the delay wheel any more. Whoever has the job run again (`leveret.ledger.retry`,
a replay) gives it a higher one, for which the row does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection, Row

from leveret.ledger.answer import Answer, conclude
from leveret.ledger.event import Kind
from leveret.ledger.state import State
from leveret.store import partition
from leveret.store.bounded import BoundedConnection
from leveret.store.engine import connect_options, conninfo
from leveret.store.identity import find_times, is_storable, resolve_times

__all__ = ["CancelOutcome", "CancelResult", "cancel", "load"]

# A worker may be about to start what is due within seconds.
_JOB = text(
    "SELECT state, run, worker, due_at,"
    " due_at > clock_timestamp() + interval '5 seconds' AS is_later"
    " FROM jobs WHERE id = :id AND created_at = :created_at FOR UPDATE"
)
#: What a relay is just sending is locked by it.
_TAKE_FROM_OUTBOX = text(
    "DELETE FROM leveret_outbox WHERE id = ANY (ARRAY("
    "SELECT id FROM leveret_outbox WHERE job_id = :id FOR UPDATE SKIP LOCKED))"
    " RETURNING actor, queue, body, created_at"
)
_IN_OUTBOX = text("SELECT EXISTS (SELECT 1 FROM leveret_outbox WHERE job_id = :id)")
_REQUEST = text(
    "INSERT INTO cancellations AS c (job_id, run, requested_at, requested_by, due_at)"
    " VALUES (:id, :run, clock_timestamp(), :by, :due_at)"
    " ON CONFLICT (job_id) DO UPDATE SET run = GREATEST(c.run, excluded.run),"
    " requested_at = excluded.requested_at, requested_by = excluded.requested_by,"
    " due_at = GREATEST(c.due_at, excluded.due_at), closed_at = NULL"
)
_CANCELLED = text(
    "UPDATE jobs SET state = 'cancelled', settled = 1, event_at = clock_timestamp(), kind = :kind,"
    " finished_at = clock_timestamp(), due_at = NULL, worker = NULL, reason = NULL,"
    " error_type = NULL, error = NULL,"
    " cancel_requested_at = COALESCE(cancel_requested_at, clock_timestamp()), updated_at = now()"
    " WHERE id = :id AND created_at = :created_at"
)
_REQUESTED = text(
    "UPDATE jobs SET cancel_requested_at = COALESCE(cancel_requested_at, clock_timestamp()),"
    " updated_at = now() WHERE id = :id AND created_at = :created_at"
)
_NEVER_SENT = text(
    "INSERT INTO jobs (id, created_at, actor, queue, body, state, settled, event_at, kind,"
    " published_at, finished_at, cancel_requested_at)"
    " VALUES (:id, :created_at, :actor, :queue, :body, 'cancelled', 1, clock_timestamp(), :kind,"
    " :published_at, clock_timestamp(), clock_timestamp())"
)
# What has ended stays for a while: a job may be delivered twice, the second time after its end.
_LOAD = (
    "SELECT job_id, run FROM cancellations"
    " WHERE closed_at IS NULL OR closed_at > now() - interval '1 hour'"
    " ORDER BY requested_at DESC LIMIT 100000"
)


class CancelOutcome(StrEnum):
    """What came of a wish to cancel a job."""

    #: It will not run.
    CANCELLED = "cancelled"
    #: It will not be started any more; if that comes too late, it runs.
    REQUESTED = "requested"
    #: It runs, or has ended.
    REFUSED = "refused"
    #: There is no such job, as far as the ledger knows.
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelResult(Answer[CancelOutcome]):
    """What came of a wish to cancel one job."""

    @property
    def is_accepted(self) -> bool:
        """Whether the workers are to be told."""
        return self.outcome in (CancelOutcome.CANCELLED, CancelOutcome.REQUESTED)

    @property
    def runs(self) -> Mapping[str, int]:
        """What the workers are to be told: for `leveret.control.ControlSender.cancel`."""
        return {self.job_id: self.run} if self.is_accepted else {}


def cancel(
    connection: Connection, job_id: str, *, by: str, address: str | None = None
) -> CancelResult:
    """Cancel a job that has not started, in the caller's transaction.

    After its commit, tell the workers ``result.runs`` if ``result.is_accepted``, and whoever waits
    for the job (`leveret.ledger.watch.notify`, which this has called within the transaction). On an
    asyncio connection: ``await connection.run_sync(cancel, job_id, by=…)``. Writes into
    ``audit_log`` who (``by``) wanted it, also when it is refused.
    """
    result = _cancel(connection, job_id, by) if is_storable(job_id) else _unknown(job_id)
    conclude(connection, result, action="job.cancel", by=by, address=address)
    return result


def _cancel(connection: Connection, job_id: str, by: str) -> CancelResult:
    times = find_times(connection, [job_id])
    key: dict[str, Any] = {"id": job_id, "created_at": times.get(job_id)}
    job = None if job_id not in times else connection.execute(_JOB, key).one_or_none()
    if job is None:
        return _cancel_stranger(connection, job_id, by)
    state, run = State(job.state), int(job.run)

    def answer(outcome: CancelOutcome, now: State, detail: str) -> CancelResult:
        return CancelResult(job_id=job_id, outcome=outcome, state=now, run=run, detail=detail)

    if state is State.CANCELLED:
        return answer(CancelOutcome.CANCELLED, state, "it was cancelled before")
    if state.is_terminal:
        return answer(CancelOutcome.REFUSED, state, f"it has ended already: it is {state}")
    if state is State.RUNNING:
        return answer(
            CancelOutcome.REFUSED,
            state,
            f"it runs already, on {job.worker or 'some worker'}; a running job is not interrupted",
        )
    unsent = connection.execute(_TAKE_FROM_OUTBOX, {"id": job_id}).all()
    being_sent = bool(connection.execute(_IN_OUTBOX, {"id": job_id}).scalar())
    wish = {"id": job_id, "run": run, "by": by, "due_at": job.due_at}
    connection.execute(_REQUEST, wish)
    waits = state in (State.SCHEDULED, State.RETRYING) and bool(job.is_later)
    if waits or (unsent and not being_sent):
        connection.execute(_CANCELLED, key | {"kind": int(Kind.CANCELLED)})
        why = "it had not been sent yet" if unsent else "it was not due yet"
        return answer(CancelOutcome.CANCELLED, State.CANCELLED, why)
    connection.execute(_REQUESTED, key)
    return answer(
        CancelOutcome.REQUESTED,
        state,
        "no worker starts it any more; if one is starting it just now, it runs to its end",
    )


def _cancel_stranger(connection: Connection, job_id: str, by: str) -> CancelResult:
    """Cancel a job that the ledger does not know: it may wait in the outbox of this database."""
    unsent = connection.execute(_TAKE_FROM_OUTBOX, {"id": job_id}).all()
    being_sent = bool(connection.execute(_IN_OUTBOX, {"id": job_id}).scalar())
    if not unsent and not being_sent:
        return _unknown(job_id)
    connection.execute(_REQUEST, {"id": job_id, "run": 0, "by": by, "due_at": None})
    if being_sent:
        return CancelResult(
            job_id=job_id,
            outcome=CancelOutcome.REQUESTED,
            state=None,
            run=0,
            detail="it is being sent just now; no worker starts it any more",
        )
    _record_unsent(connection, job_id, unsent[0])
    return CancelResult(
        job_id=job_id,
        outcome=CancelOutcome.CANCELLED,
        state=State.CANCELLED,
        run=0,
        detail="it had not been sent yet",
    )


def _record_unsent(connection: Connection, job_id: str, row: Row[Any]) -> None:
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    times = resolve_times(connection, [job_id], now=now, partitions=partition.ensure(connection))
    connection.execute(
        _NEVER_SENT,
        {
            "id": job_id,
            "created_at": times[job_id],
            "actor": row.actor,
            "queue": row.queue,
            "body": row.body,
            "kind": int(Kind.CANCELLED),
            "published_at": row.created_at,
        },
    )


def _unknown(job_id: str) -> CancelResult:
    return CancelResult(
        job_id=job_id,
        outcome=CancelOutcome.UNKNOWN,
        state=None,
        run=0,
        detail="the ledger does not know such a job",
    )


def load(url: str) -> dict[str, int]:
    """Read which jobs must not be started, each up to a run; the newest last. For workers.

    Raises `psycopg.Error` when the database is away, does not answer, or has no such table.
    """
    with BoundedConnection.connect(
        conninfo(url), autocommit=True, **connect_options("leveret worker")
    ) as connection:
        rows = connection.execute(_LOAD).fetchall()
    return dict(reversed(rows))
