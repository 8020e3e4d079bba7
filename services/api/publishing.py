"""Accepting jobs: the ledger's row and the outbox's row in one transaction.

When it has committed, the job is kept (a relay will publish it, whatever becomes of this process)
and ``GET /v1/jobs/{id}`` finds it. The row is what the recorder would write for the job itself, as
the oldest news of it: whatever the ledger hears later is newer.

**Sending again.** An id names one job: the same job under the same id is accepted and not published
a second time, another job under it is refused. For a request with an ``Idempotency-Key`` see
`services.api.again`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from leveret import outbox
from leveret.claims import register_unique
from leveret.ledger import State
from leveret.store import audit_log
from leveret.store.identity import resolve_times
from leveret.store.schema import JobRow
from services.api.again import Again, answered, remember
from services.api.catalogue import Prepared
from services.api.context import Caller
from services.api.models import Accepted
from services.api.problem import Fault, Kind, Problem

__all__ = ["Answer", "accept"]

#: Larger than any body: the size has been checked against the setting by then.
_CHECKED = 2**31


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What was accepted, and whether that is said again."""

    jobs: list[Accepted]
    replayed: bool = False


def accept(
    connection: Connection,
    wanted: Sequence[Prepared],
    *,
    caller: Caller,
    again: Again | None,
    partitions: Collection[date],
    pointers: Sequence[str],
) -> Answer:
    """Write jobs into the ledger and the outbox, all or none; in the caller's transaction.

    Raises a `Problem` when an id or a key stands for something else already. ``pointers`` say where
    in the request each job is.
    """
    now = datetime.now(UTC)
    answer = [_accepted(job) for job in wanted]
    if again is not None:
        before = _answered(connection, caller, again, answer)
        if before is not None:
            return Answer(jobs=before, replayed=True)
    times = resolve_times(
        connection, [job.job.id for job in wanted], now=now, partitions=partitions
    )
    # In one order, so that two batches with the same ids do not wait for each other in a circle.
    rows = sorted((_row(job, times[job.job.id], now) for job in wanted), key=lambda r: r["id"])
    inserted = set(
        connection.execute(
            insert(JobRow).on_conflict_do_nothing().returning(JobRow.id), rows
        ).scalars()
    )
    fresh = [job for job in wanted if job.job.id in inserted]
    if len(fresh) < len(wanted):
        answer = _with_those_there(connection, wanted, inserted, times, pointers)
        if again is not None:
            remember(connection, caller, again, _dump(answer))
    if fresh:
        for job in fresh:
            register_unique(connection, job.job)
        outbox.enqueue_many(connection, [job.job for job in fresh], max_body_bytes=_CHECKED)
    audit_log.record(
        connection,
        who=caller.who,
        action="job.publish",
        target=wanted[0].job.id,
        detail={"jobs": len(wanted), "actors": sorted({job.job.actor for job in wanted})[:10]},
        address=caller.address,
    )
    return Answer(jobs=answer)


def _accepted(job: Prepared) -> Accepted:
    return Accepted(
        id=job.job.id,
        state=job.state,
        actor=job.job.actor,
        queue=job.queue,
        due_at=job.job.due_at,
    )


def _row(job: Prepared, created_at: datetime, now: datetime) -> dict[str, Any]:
    return {
        "id": job.job.id,
        "created_at": created_at,
        "actor": job.job.actor,
        "queue": job.queue,
        "routing_key": job.job.key,
        "content_type": "application/json",
        "body": job.body,
        "headers": job.headers,
        "properties": job.properties,
        "priority": job.job.priority,
        "correlation_id": job.job.correlation_id,
        "app_id": job.job.app_id,
        "idempotency_key": job.job.idempotency_key,
        "traceparent": job.job.traceparent,
        "expires_at": job.job.expires_at,
        "published_at": now,
        "state": job.state,
        "due_at": job.job.due_at,
    }


def _with_those_there(
    connection: Connection,
    wanted: Sequence[Prepared],
    inserted: Collection[str],
    times: Mapping[str, datetime],
    pointers: Sequence[str],
) -> list[Accepted]:
    """Say of the jobs that were there before how they stand; refuse those that are others."""
    keys = [(job.job.id, times[job.job.id]) for job in wanted if job.job.id not in inserted]
    found = {
        row.id: row
        for row in connection.execute(
            select(
                JobRow.id, JobRow.state, JobRow.actor, JobRow.queue, JobRow.body, JobRow.due_at
            ).where(tuple_(JobRow.id, JobRow.created_at).in_(keys))
        )
    }
    answer, faults = [], []
    for job, pointer in zip(wanted, pointers, strict=True):
        row = found.get(job.job.id)
        if row is None:
            answer.append(_accepted(job))
            continue
        # What is not known yet of a job that others have published cannot be compared.
        if row.actor not in (None, job.job.actor) or row.body not in (None, job.body):
            faults.append(
                Fault(
                    pointer=f"{pointer}/id",
                    reason="id-taken",
                    detail=f"another job has the id {job.job.id!r}",
                )
            )
        answer.append(
            Accepted(
                id=job.job.id,
                state=State(row.state),
                actor=row.actor or job.job.actor,
                queue=row.queue or job.queue,
                due_at=row.due_at,
                existed=True,
            )
        )
    if faults:
        raise Problem(Kind.CONFLICT, faults[0].detail, errors=faults)
    return answer


def _answered(
    connection: Connection, caller: Caller, again: Again, answer: Sequence[Accepted]
) -> list[Accepted] | None:
    """Remember the answer, or return the one that is remembered."""
    before = answered(connection, caller, again, _dump(answer), status=202)
    return None if before is None else [Accepted.model_validate(job) for job in json.loads(before)]


def _dump(answer: Sequence[Accepted]) -> bytes:
    return json.dumps([job.model_dump(mode="json") for job in answer]).encode()
