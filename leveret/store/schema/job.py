"""Jobs and their attempts: the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["QUEUE", "Attempt", "JobId", "JobRow", "Reject"]

#: A job's queue in the indexes of ``jobs``, where null would compare with nothing.
QUEUE = "COALESCE(queue, ''::text)"


class JobRow(Base):
    """One job, and the state it is in."""

    __tablename__ = "jobs"

    id: Mapped[str]
    #: The time of the job, from its id or from ``job_ids``; decides the partition.
    created_at: Mapped[datetime]

    # What was published. All of it is null until the job itself has been seen: a foreign job's
    # outcome may arrive before its tap.
    actor: Mapped[str | None]
    queue: Mapped[str | None]
    routing_key: Mapped[str | None]
    content_type: Mapped[str | None]
    body: Mapped[bytes | None]
    #: All AMQP headers of the job, as JSON; what JSON cannot write is its ``repr``.
    headers: Mapped[dict[str, Any] | None]
    #: The job's AMQP properties as they are encoded on the wire, to publish it again unchanged.
    properties: Mapped[bytes | None]
    priority: Mapped[int | None] = mapped_column(SmallInteger)
    correlation_id: Mapped[str | None]
    app_id: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    traceparent: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]

    # Where it stands.
    state: Mapped[str]
    #: 0 for the job as it was published, one more for every replay.
    run: Mapped[int] = mapped_column(server_default=text("0"))
    attempt: Mapped[int] = mapped_column(server_default=text("1"))
    #: Not before this time; when it is retrying or scheduled.
    due_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    reason: Mapped[str | None]
    error_type: Mapped[str | None]
    error: Mapped[str | None]
    #: What the actor returned, as JSON text.
    result: Mapped[bytes | None]
    #: Where that is kept, if it is large: a path below ``LEVERET_RESULT_STORE``.
    result_ref: Mapped[str | None]
    #: Why it is not kept.
    result_lost: Mapped[str | None]
    #: From 0 to 1.
    progress: Mapped[float | None]
    progress_note: Mapped[str | None]
    progress_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]

    # How new that is: rows are compared by (run, settled, attempt, event_at, kind), see
    # `leveret.ledger.fold`.
    settled: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    event_at: Mapped[datetime] = mapped_column(server_default=text("'-infinity'"))
    kind: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        PrimaryKeyConstraint("id", "created_at"),
        CheckConstraint(
            "state IN ('scheduled', 'queued', 'running', 'retrying',"
            " 'succeeded', 'dead', 'cancelled', 'expired')",
            name="state",
        ),
        # What `leveret.ledger.query` reads, and no more: each costs every insert and every change
        # of state about a microsecond. The queue of a job is null until somebody knows it.
        Index("jobs_queue_idx", text(QUEUE), "state", text("created_at DESC"), text("id DESC")),
        Index(
            "jobs_actor_idx",
            "actor",
            text(QUEUE),
            "state",
            text("created_at DESC"),
            text("id DESC"),
        ),
        Index(
            "jobs_correlation_idx",
            "correlation_id",
            "state",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("correlation_id IS NOT NULL"),
        ),
        Index(
            "jobs_idempotency_idx",
            "idempotency_key",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        # What has ended lately, for roll-ups. BRIN would cost the recorder as much, and the query
        # ten times as much.
        Index(
            "jobs_finished_idx",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        # What the delay wheel owes (`leveret.housekeeping.exporter`). Only what waits is in it.
        Index(
            "jobs_due_idx",
            "due_at",
            postgresql_where=text("state IN ('scheduled', 'retrying')"),
        ),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )


class Attempt(Base):
    """One run of an actor for a job, or a delivery that ended without one."""

    __tablename__ = "attempts"

    job_id: Mapped[str]
    #: That of the job.
    created_at: Mapped[datetime]
    run: Mapped[int]
    attempt: Mapped[int]
    #: When it started; when it ended, if it never started.
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    queue: Mapped[str | None]
    #: running, succeeded, retrying, snoozed, dead, expired, cancelled, quarantined, abandoned.
    outcome: Mapped[str]
    due_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    error_type: Mapped[str | None]
    error: Mapped[str | None]
    traceback: Mapped[str | None]

    __table_args__ = (
        PrimaryKeyConstraint("job_id", "created_at", "run", "attempt", "started_at"),
        Index(None, "worker", postgresql_where=text("outcome = 'running'")),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )


class JobId(Base):
    """The time of a job whose id does not tell it."""

    __tablename__ = "job_ids"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(index=True)


class Reject(Base):
    """A message in the ledger's queue that could not be understood."""

    __tablename__ = "ledger_rejects"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queue: Mapped[str]
    routing_key: Mapped[str | None]
    error: Mapped[str]
    properties: Mapped[bytes | None]
    body: Mapped[bytes]
