"""Requests that are sent again, and known again by their ``Idempotency-Key``.

Such a request is answered with what was answered the first time. The row that remembers it is
inserted before anything else, in the transaction of what is asked for, so that a second request
with the key waits for the first one's transaction, and then sees its answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Response
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from leveret.store.schema import IdempotentRequest
from services.api.context import Caller
from services.api.models import Word
from services.api.problem import Fault, Kind, Problem

__all__ = ["REPLAYED", "Again", "IdempotencyKey", "answered", "remember", "say_replayed"]

IdempotencyKey = Annotated[
    Word | None,
    Header(
        alias="Idempotency-Key",
        description="Makes it safe to send the request again: the same key with the same request "
        "gets the first one's answer, with `Idempotency-Replayed: true`, for at least 24 hours.",
    ),
]
#: For the document: what an answer says that was given before.
REPLAYED = {
    "Idempotency-Replayed": {
        "description": "`true` when the request had been accepted before.",
        "schema": {"type": "string"},
    }
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Again:
    """How a request is known again."""

    key: str
    #: Of the request: another one with the same key is refused.
    digest: bytes

    @classmethod
    def of(cls, key: str | None, path: str, document: Any) -> Again | None:
        """Return it for a request, or None when it brings no key."""
        if key is None:
            return None
        text = json.dumps([path, document], sort_keys=True)
        return cls(key=key, digest=hashlib.sha256(text.encode()).digest())


def answered(
    connection: Connection, caller: Caller, again: Again, answer: bytes, *, status: int
) -> bytes | None:
    """Remember an answer, or return the one that is remembered.

    Raises a `Problem` when the key stands for another request.
    """
    mine = connection.execute(
        insert(IdempotentRequest)
        .values(
            api_key=caller.key.id,
            key=again.key,
            digest=again.digest,
            status=status,
            answer=answer,
        )
        .on_conflict_do_nothing()
        .returning(IdempotentRequest.key)
    ).first()
    if mine is not None:
        return None
    row = connection.execute(
        select(IdempotentRequest.digest, IdempotentRequest.answer).where(
            IdempotentRequest.api_key == caller.key.id, IdempotentRequest.key == again.key
        )
    ).one()
    if row.digest != again.digest:
        raise Problem(
            Kind.KEY_REUSED,
            f"the Idempotency-Key {again.key!r} came with another request before; use a new one",
            errors=[
                Fault(
                    header="Idempotency-Key",
                    reason="key-reused",
                    detail="it stands for another request",
                )
            ],
        )
    return bytes(row.answer)


def remember(connection: Connection, caller: Caller, again: Again, answer: bytes) -> None:
    """Remember another answer than the one that was to be given."""
    connection.execute(
        update(IdempotentRequest)
        .where(IdempotentRequest.api_key == caller.key.id, IdempotentRequest.key == again.key)
        .values(answer=answer)
    )


def say_replayed(response: Response) -> None:
    """Say in an answer that it was given before."""
    response.headers["Idempotency-Replayed"] = "true"
