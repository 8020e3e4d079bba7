"""Jobs that wait to be published."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["OutboxRow"]


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
