"""What makes the effects of a job happen once, and lets it go on where it was."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, PrimaryKeyConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["Checkpoint", "Claim", "UniqueJob"]


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


class Checkpoint(Base):
    """How far a job has come, for its next attempt."""

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
