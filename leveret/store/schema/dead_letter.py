"""Dead letters, and their replays."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["DeadLetter", "DeadLetterGroup", "Replay"]


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
