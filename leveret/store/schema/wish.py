"""What somebody wants of a job while it lives: news of it, or its end."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["Cancellation", "Watch"]


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
