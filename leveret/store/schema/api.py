"""The HTTP API: its keys, what it has answered, and who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, PrimaryKeyConstraint, SmallInteger, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from leveret.store.schema.base import Base

__all__ = ["ApiKey", "AuditEntry", "IdempotentRequest"]


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
