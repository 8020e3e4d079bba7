"""Jobs, counted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Identity, PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["JobRollup", "RollupMark"]


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


class RollupMark(Base):
    """Five minutes that are to be counted anew: a job that ended then came late."""

    __tablename__ = "rollup_marks"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    bucket: Mapped[datetime]
