"""The tables.

Times are ``timestamptz``. What came from outside as bytes is kept as bytes: ``json`` and ``text``
columns cannot hold everything that a job's body may hold (U+0000, for one), and would lose how it
was written.

**Partitions.** ``jobs`` and ``attempts`` are partitioned by ``created_at``, the time of the job, a
day each (`leveret.store.partition`). A row is found by its id although the key has the time in it,
because the time is a function of the id: an id made by Leveret (UUIDv7) carries its time; for any
other, and for one whose time has no partition, ``job_ids`` remembers when it was first seen.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "QUEUE",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "Base",
    "Cancellation",
    "Checkpoint",
    "Claim",
    "DeadLetter",
    "DeadLetterGroup",
    "IdempotentRequest",
    "JobId",
    "JobRollup",
    "JobRow",
    "Lease",
    "OutboxRow",
    "Reject",
    "Replay",
    "Schedule",
    "ScheduleSlot",
    "UniqueJob",
    "Watch",
    "WorkerRow",
    "metadata",
]

_Time = TIMESTAMP(timezone=True)

#: A job's queue in the indexes of ``jobs``, where null would compare with nothing.
QUEUE = "COALESCE(queue, ''::text)"

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)


class Base(DeclarativeBase):
    """What the models share."""

    metadata = metadata
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own protocol
        datetime: _Time,
        str: Text,
        bytes: LargeBinary,
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: ARRAY(Text),
        list[int]: ARRAY(BigInteger),
    }


# -------------------------------------------------------------------------------------- the ledger


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


class WorkerRow(Base):
    """A worker process, as its heartbeats describe it."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]]
    threads: Mapped[int]
    #: Ids of the jobs that it was running.
    running: Mapped[list[str]]
    first_seen_at: Mapped[datetime]
    #: When the ledger took in its latest heartbeat.
    seen_at: Mapped[datetime] = mapped_column(index=True)
    #: When the worker sent it, by its own clock.
    beat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When it was found to be gone.
    gone_at: Mapped[datetime | None]


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


class Watch(Base):
    """Somebody waits for news of a job: its changes are notified on ``leveret_jobs``.

    Not logged: who waits asks again after a crash of the database.
    """

    __tablename__ = "watches"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    watcher: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[datetime]

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


class Cancellation(Base):
    """A job that is not to be started any more; workers read this when they begin."""

    __tablename__ = "cancellations"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    #: The run that is not to be started, and those before it; a later one is somebody's new wish.
    run: Mapped[int] = mapped_column(server_default=text("0"))
    requested_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    requested_by: Mapped[str]
    #: When a copy of it may come out of the delay wheel, if it had waited there.
    due_at: Mapped[datetime | None]
    #: When a worker had dropped it, or it turned out to have ended otherwise.
    closed_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "closed_at", postgresql_where=text("closed_at IS NULL")),)


class Checkpoint(Base):
    """How far a job has come, for its next attempt."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


# ------------------------------------------------------------------------------------- dead letters


class DeadLetter(Base):
    """A message that was given up, with its original bytes."""

    __tablename__ = "dead_letters"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    #: The same for each delivery of the same dead letter.
    key: Mapped[str] = mapped_column(unique=True)
    job_id: Mapped[str | None] = mapped_column(index=True)
    job_created_at: Mapped[datetime | None]
    run: Mapped[int] = mapped_column(server_default=text("0"))
    attempt: Mapped[int] = mapped_column(server_default=text("1"))
    actor: Mapped[str | None]
    #: The pool in which it died; null for what no queue wanted.
    queue: Mapped[str | None]
    routing_key: Mapped[str]
    exchange: Mapped[str | None]
    reason: Mapped[str]
    error_type: Mapped[str | None]
    error: Mapped[str | None]
    traceback: Mapped[str | None]
    fingerprint: Mapped[str]
    body: Mapped[bytes]
    #: The original's AMQP properties as they are encoded on the wire.
    properties: Mapped[bytes]
    #: The original's headers, to look at.
    headers: Mapped[dict[str, Any] | None]
    dead_at: Mapped[datetime]
    stored_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: open, replaying, replayed, discarded, or superseded (the job succeeded all the same).
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None]
    replay_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("replays.id"))
    #: The job that an edited replay made of it.
    new_job_id: Mapped[str | None]
    #: Why the last replay that wanted it did not publish it.
    refusal: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(
            "state IN ('open', 'replaying', 'replayed', 'discarded', 'superseded')", name="state"
        ),
        # Each has all that a list is filtered by, so that conditions which never meet are looked up
        # without reading the letters themselves.
        Index(
            "dead_letters_page_idx",
            text("dead_at DESC"),
            text("id DESC"),
            postgresql_include=["state", "actor", "queue", "reason", "fingerprint"],
        ),
        Index(
            None,
            "state",
            text("dead_at DESC"),
            text("id DESC"),
            postgresql_include=["actor", "queue", "reason", "fingerprint"],
        ),
        Index(
            None,
            "fingerprint",
            "state",
            text("dead_at DESC"),
            text("id DESC"),
            postgresql_include=["actor", "queue", "reason"],
        ),
        Index(
            None,
            "actor",
            "state",
            text("dead_at DESC"),
            text("id DESC"),
            postgresql_include=["queue", "reason", "fingerprint"],
        ),
        Index(None, "replay_id", "state", "id", postgresql_where=text("replay_id IS NOT NULL")),
    )


class DeadLetterGroup(Base):
    """All dead letters with the same fingerprint, counted."""

    __tablename__ = "dead_letter_groups"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    actor: Mapped[str | None]
    reason: Mapped[str]
    error_type: Mapped[str | None]
    #: Those of the latest.
    error: Mapped[str | None]
    traceback: Mapped[str | None]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    total: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    open: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    replayed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    discarded: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    superseded: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    #: Dead letters of jobs that had been replayed before.
    died_again: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))

    __table_args__ = (
        Index("dead_letter_groups_page_idx", text("last_at DESC"), text("fingerprint DESC")),
    )


class Replay(Base):
    """Dead letters that somebody had published again."""

    __tablename__ = "replays"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    requested_by: Mapped[str]
    #: Which dead letters: the filter as it was given.
    selection: Mapped[dict[str, Any]]
    #: Jobs per second; null for as fast as it goes.
    rate: Mapped[float | None]
    #: Arguments that replace the original's; the jobs are then new ones.
    edits: Mapped[dict[str, Any] | None]
    state: Mapped[str] = mapped_column(server_default=text("'running'"))
    total: Mapped[int] = mapped_column(server_default=text("0"))
    published: Mapped[int] = mapped_column(server_default=text("0"))
    #: Dead letters that cannot be published again, such as those without an actor.
    refused: Mapped[int] = mapped_column(server_default=text("0"))
    #: When its rate allows the next job, by the database's clock; null before the first.
    next_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('running', 'done', 'cancelled')", name="state"),
        Index(None, "state", postgresql_where=text("state = 'running'")),
    )


# ------------------------------------------------------------------------------ outbox and claims


class OutboxRow(Base):
    """A job that is to be published when the transaction that wrote it has committed.

    Any language may insert a row: ``actor`` and ``body`` are enough.
    """

    __tablename__ = "leveret_outbox"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(server_default=text("(gen_random_uuid())::text"))
    actor: Mapped[str]
    queue: Mapped[str | None]
    #: The named arguments, as a JSON object.
    body: Mapped[bytes]
    #: The rest of the job, by the names of `leveret.message.Job`: priority, expires_at, …
    options: Mapped[dict[str, Any] | None]
    due_at: Mapped[datetime | None]
    #: The relay leaves the row alone until then: a job due beyond the wheel's horizon, or a row
    #: that could not be published (``infinity``).
    hold_until: Mapped[datetime] = mapped_column(server_default=text("'-infinity'"))
    #: For a message that is passed on as it was: its AMQP properties as encoded on the wire. Then
    #: ``routing_key`` is that of the message, and ``options`` are not looked at.
    properties: Mapped[bytes | None]
    routing_key: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Why it could not be published.
    error: Mapped[str | None]

    # Two partial indexes, so that a scan by id does not walk over rows that are held. Vacuum by
    # the number of dead rows, not by their share: the table is empty most of the time.
    __table_args__ = (
        Index("leveret_outbox_ready_idx", "id", postgresql_where=text("hold_until = '-infinity'")),
        Index(
            "leveret_outbox_held_idx",
            "hold_until",
            "id",
            postgresql_where=text("hold_until > '-infinity'"),
        ),
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 1000,
                "autovacuum_vacuum_cost_delay": 0,
                "autovacuum_analyze_scale_factor": 0,
                "autovacuum_analyze_threshold": 10000,
                "toast.autovacuum_vacuum_scale_factor": 0,
                "toast.autovacuum_vacuum_threshold": 1000,
            }
        },
    )


class Claim(Base):
    """The right to have the effects of one job, or of all jobs with one key."""

    __tablename__ = "claims"

    actor: Mapped[str]
    key: Mapped[str]
    job_id: Mapped[str]
    state: Mapped[str]
    #: One more each time that the claim changes hands; an older holder's commit is refused.
    epoch: Mapped[int] = mapped_column(BigInteger)
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    claimed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    done_at: Mapped[datetime | None]
    #: What the run said of its result, as a JSON object: ``result``, ``ref`` or ``lost``.
    result: Mapped[bytes | None]
    #: When it may be forgotten.
    expires_at: Mapped[datetime | None] = mapped_column(index=True)

    __table_args__ = (
        PrimaryKeyConstraint("actor", "key"),
        CheckConstraint("state IN ('running', 'done', 'released')", name="state"),
    )


class UniqueJob(Base):
    """Which job stands for all that were published with one unique key."""

    __tablename__ = "unique_jobs"

    actor: Mapped[str]
    key: Mapped[str]
    #: One more with each change: who decides by what it has read writes only over that.
    version: Mapped[int] = mapped_column(BigInteger)
    #: The job that started last, unless it ended badly.
    job_id: Mapped[str | None]
    published_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    #: It is believed to run, or to run again, until then; renewed while it runs.
    held_until: Mapped[datetime | None]
    #: The job that was published last, of those that were registered when they were published.
    latest_id: Mapped[str | None]
    latest_at: Mapped[datetime | None]
    #: When all of it may be forgotten.
    until: Mapped[datetime | None] = mapped_column(index=True)

    __table_args__ = (PrimaryKeyConstraint("actor", "key"),)


# ----------------------------------------------------------------------------------------- the API


class ApiKey(Base):
    """A key to the HTTP API: ``lv_<id>_<secret>``, of which only a hash of the secret is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    #: SHA-256 of the secret, which is random and long.
    hash: Mapped[bytes]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class IdempotentRequest(Base):
    """What was answered to a request with an ``Idempotency-Key``."""

    __tablename__ = "idempotent_requests"

    api_key: Mapped[str]
    key: Mapped[str]
    #: SHA-256 of the request: the same key with another request is refused.
    digest: Mapped[bytes]
    status: Mapped[int] = mapped_column(SmallInteger)
    answer: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)

    __table_args__ = (PrimaryKeyConstraint("api_key", "key"),)


class AuditEntry(Base):
    """Who changed what, or tried to."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    #: ``key:<id>`` or ``cli:<user>@<host>``.
    who: Mapped[str]
    #: A verb and a noun: job.cancel, replay.create, key.revoke.
    action: Mapped[str]
    target: Mapped[str | None]
    #: done or refused.
    outcome: Mapped[str]
    detail: Mapped[dict[str, Any] | None]
    #: The client's address.
    address: Mapped[str | None] = mapped_column(Text)


# ------------------------------------------------------------------------------------ the scheduler


class Lease(Base):
    """The right of one process to do something alone, for a term, by the database's clock."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    #: The process that has it, or had it last.
    holder: Mapped[str]
    #: One more each time that the lease changes hands; what an older holder writes is refused.
    epoch: Mapped[int] = mapped_column(BigInteger)
    acquired_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Schedule(Base):
    """When a job is published again and again."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    #: code (declared next to the actor), file (of declarations) or api (made by somebody).
    origin: Mapped[str]
    description: Mapped[str | None]
    actor: Mapped[str]
    queue: Mapped[str | None]
    #: The named arguments, as a JSON object.
    body: Mapped[bytes]
    #: The rest of the job, by the names of `leveret.message.Job`.
    options: Mapped[dict[str, Any] | None]

    #: cron, interval or date.
    trigger: Mapped[str]
    #: Cron fields, the seconds between two slots, or one moment.
    expression: Mapped[str]
    #: An IANA name.
    timezone: Mapped[str] = mapped_column(server_default=text("'UTC'"))
    #: Slots at an interval are counted from there; null for 1970-01-01 UTC.
    anchor_at: Mapped[datetime | None]
    #: A job is published up to so many seconds after its slot.
    jitter_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    start_at: Mapped[datetime | None]
    end_at: Mapped[datetime | None]

    #: What becomes of slots that passed while no scheduler led: skip, once (the latest), all.
    missed: Mapped[str] = mapped_column(server_default=text("'once'"))
    #: Slots that are older than this are skipped whatever ``missed`` says.
    missed_window_seconds: Mapped[float | None]
    #: What becomes of a slot while the job of an earlier one lives: allow, skip, queue.
    overlap: Mapped[str] = mapped_column(server_default=text("'allow'"))
    #: What becomes of a wall-clock time that daylight saving skips: skip, or next (the first
    #: moment after the gap).
    dst_skipped: Mapped[str] = mapped_column(server_default=text("'next'"))
    #: … and of one that it doubles: first, both.
    dst_doubled: Mapped[str] = mapped_column(server_default=text("'first'"))

    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None]
    #: Since when its slots are these: when it was made, changed in that, or resumed.
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The slot that was decided on last; none up to it is looked at again.
    last_slot: Mapped[datetime | None]
    #: When the job of its next slot is due, jitter included; null when there is no slot any more.
    next_due_at: Mapped[datetime | None]
    #: One more with each change of what somebody has set.
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_by: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("origin IN ('code', 'file', 'api')", name="origin"),
        CheckConstraint("trigger IN ('cron', 'interval', 'date')", name="trigger"),
        CheckConstraint("missed IN ('skip', 'once', 'all')", name="missed"),
        CheckConstraint("overlap IN ('allow', 'skip', 'queue')", name="overlap"),
        CheckConstraint("dst_skipped IN ('skip', 'next')", name="dst_skipped"),
        CheckConstraint("dst_doubled IN ('first', 'both')", name="dst_doubled"),
        Index(None, "next_due_at", postgresql_where=text("paused_at IS NULL")),
    )


class ScheduleSlot(Base):
    """One moment of a schedule, decided on once: the key is what makes a slot one job."""

    __tablename__ = "schedule_slots"

    #: No foreign key: what a schedule did is known when it is gone.
    schedule: Mapped[str]
    #: The moment that the trigger names, before jitter; of a run-now, the moment it was asked for.
    slot: Mapped[datetime]
    #: The last of many slots that were skipped for one reason, of which ``slot`` is the first.
    until: Mapped[datetime | None]
    #: How many slots this is; null when they were too many to be counted.
    count: Mapped[int | None] = mapped_column(server_default=text("1"))
    #: fired, skipped (missed, paused, or by its overlap policy), queued (waits for an earlier job).
    outcome: Mapped[str] = mapped_column(server_default=text("'fired'"))
    #: Derived from the schedule and the slot; null when nothing was published.
    job_id: Mapped[str | None]
    #: schedule, run (somebody wanted it now), backfill, or repair (of an audit).
    cause: Mapped[str] = mapped_column(server_default=text("'schedule'"))
    #: Who wanted it, if somebody did.
    asked_by: Mapped[str | None]
    reason: Mapped[str | None]
    #: Of the lease under which it was decided; null when somebody wanted it.
    epoch: Mapped[int | None] = mapped_column(BigInteger)
    #: When it was to be published: the slot, with its jitter.
    due_at: Mapped[datetime]
    #: When that was decided.
    fired_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"), index=True)

    __table_args__ = (
        PrimaryKeyConstraint("schedule", "slot"),
        CheckConstraint("outcome IN ('fired', 'skipped', 'queued')", name="outcome"),
        CheckConstraint("cause IN ('schedule', 'run', 'backfill', 'repair')", name="cause"),
        Index(None, "job_id", postgresql_where=text("job_id IS NOT NULL")),
        Index(None, "schedule", "slot", postgresql_where=text("outcome = 'queued'")),
    )


class JobRollup(Base):
    """Jobs that ended within five minutes, counted: what pages draw without reading jobs."""

    __tablename__ = "job_rollups"

    #: Where the five minutes begin.
    bucket: Mapped[datetime]
    actor: Mapped[str]
    queue: Mapped[str]
    #: succeeded, dead, cancelled or expired.
    state: Mapped[str]
    jobs: Mapped[int] = mapped_column(BigInteger)
    #: Attempts beyond the first.
    retries: Mapped[int] = mapped_column(BigInteger)
    #: Sum of the last attempts' durations, and of the times from due to started.
    run_seconds: Mapped[float]
    queue_seconds: Mapped[float]
    #: How many jobs took how long, by the bounds of ``leveret_job_duration_seconds``.
    run_histogram: Mapped[list[int]]
    queue_histogram: Mapped[list[int]]

    __table_args__ = (PrimaryKeyConstraint("bucket", "actor", "queue", "state"),)
