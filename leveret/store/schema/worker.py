"""Worker processes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["WorkerRow"]


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
