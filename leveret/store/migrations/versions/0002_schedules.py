"""Schedules, their slots, and leases; roll-ups."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "job_rollups",
        sa.Column("bucket", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("run_seconds", sa.Double(), nullable=False),
        sa.Column("queue_seconds", sa.Double(), nullable=False),
        sa.Column("run_histogram", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("queue_histogram", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.PrimaryKeyConstraint("bucket", "actor", "queue", "state", name=op.f("job_rollups_pkey")),
    )
    op.create_table(
        "rollup_marks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("bucket", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("rollup_marks_pkey")),
    )
    op.create_index(
        "jobs_finished_idx",
        "jobs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column(
            "acquired_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("leases_pkey")),
    )
    op.create_table(
        "schedule_slots",
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("slot", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=True),
        sa.Column("outcome", sa.Text(), server_default=sa.text("'fired'"), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("cause", sa.Text(), server_default=sa.text("'schedule'"), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("due_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column(
            "fired_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "cause IN ('schedule', 'run', 'backfill', 'repair')",
            name=op.f("schedule_slots_cause_check"),
        ),
        sa.CheckConstraint(
            "outcome IN ('fired', 'skipped', 'queued')", name=op.f("schedule_slots_outcome_check")
        ),
        sa.PrimaryKeyConstraint("schedule", "slot", name=op.f("schedule_slots_pkey")),
    )
    op.create_index(
        op.f("schedule_slots_fired_at_idx"), "schedule_slots", ["fired_at"], unique=False
    )
    op.create_index(
        op.f("schedule_slots_job_id_idx"),
        "schedule_slots",
        ["job_id"],
        unique=False,
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
    op.create_index(
        op.f("schedule_slots_schedule_slot_idx"),
        "schedule_slots",
        ["schedule", "slot"],
        unique=False,
        postgresql_where=sa.text("outcome = 'queued'"),
    )
    op.create_index(
        "schedule_slots_unfired_idx",
        "schedule_slots",
        ["schedule", "slot"],
        unique=False,
        postgresql_where=sa.text("outcome <> 'fired'"),
    )
    op.create_index(
        "schedule_slots_runs_idx",
        "schedule_slots",
        ["schedule", "slot"],
        unique=False,
        postgresql_where=sa.text("until IS NOT NULL"),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("options", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), server_default=sa.text("'UTC'"), nullable=False),
        sa.Column("anchor_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("jitter_seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("start_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("end_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("missed", sa.Text(), server_default=sa.text("'once'"), nullable=False),
        sa.Column("missed_window_seconds", sa.Double(), nullable=True),
        sa.Column("overlap", sa.Text(), server_default=sa.text("'allow'"), nullable=False),
        sa.Column("dst_skipped", sa.Text(), server_default=sa.text("'next'"), nullable=False),
        sa.Column("dst_doubled", sa.Text(), server_default=sa.text("'first'"), nullable=False),
        sa.Column("paused_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column(
            "since",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("last_slot", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("next_due_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column(
            "updated_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("updated_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "dst_doubled IN ('first', 'both')", name=op.f("schedules_dst_doubled_check")
        ),
        sa.CheckConstraint(
            "dst_skipped IN ('skip', 'next')", name=op.f("schedules_dst_skipped_check")
        ),
        sa.CheckConstraint(
            "missed IN ('skip', 'once', 'all')", name=op.f("schedules_missed_check")
        ),
        sa.CheckConstraint(
            "origin IN ('code', 'file', 'api')", name=op.f("schedules_origin_check")
        ),
        sa.CheckConstraint(
            "overlap IN ('allow', 'skip', 'queue')", name=op.f("schedules_overlap_check")
        ),
        sa.CheckConstraint(
            "trigger IN ('cron', 'interval', 'date')", name=op.f("schedules_trigger_check")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("schedules_pkey")),
    )
    op.create_index(
        op.f("schedules_next_due_at_idx"),
        "schedules",
        ["next_due_at"],
        unique=False,
        postgresql_where=sa.text("paused_at IS NULL"),
    )
