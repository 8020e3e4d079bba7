"""The scheduler: who leads, when jobs are published, and which were."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, PrimaryKeyConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["Lease", "Schedule", "ScheduleSlot"]


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
        # What `leveret.schedules.history` looks for among very many that were fired.
        Index(
            "schedule_slots_unfired_idx",
            "schedule",
            "slot",
            postgresql_where=text("outcome <> 'fired'"),
        ),
        Index(
            "schedule_slots_runs_idx",
            "schedule",
            "slot",
            postgresql_where=text("until IS NOT NULL"),
        ),
    )
