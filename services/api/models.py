"""What the API reads and writes: one model for each document.

What comes in is strict (a number is not written as text, an unknown name is refused), so that a
mistake is told and not guessed around. Texts cannot hold U+0000, which PostgreSQL does not keep.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from leveret.ledger import State
from leveret.store.api_keys import Scope

__all__ = [
    "Accepted",
    "AcceptedBatch",
    "Actor",
    "ActorList",
    "AuditLine",
    "AuditPage",
    "AuditQuery",
    "Batch",
    "KeyInfo",
    "KeyList",
    "NewJob",
    "NewKey",
    "NewKeyAnswer",
    "Queue",
    "QueueList",
]

MAX_BATCH = 1000


def kept(text: str) -> str:
    """Refuse what PostgreSQL, or UTF-8, cannot hold."""
    if "\x00" in text:
        raise ValueError("must not contain U+0000")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("must not contain half a character (a lone surrogate)") from None
    if size > 255:
        raise ValueError("must not take more than 255 bytes")
    return text


def _written(value: object) -> object:
    """Read a time only where it is written out: a number could be any unit."""
    if not isinstance(value, str) or len(value) < 16:
        raise ValueError("must be an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    """Refuse the times that UTC has no year for."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999") from None


Word = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(kept)]
Time = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_written), AfterValidator(_in_utc)
]
Seconds = Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]


class _In(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


# --------------------------------------------------------------------------------------- publishing


class NewJob(_In):
    """A job to publish."""

    actor: Word = Field(description="The actor that runs it.", examples=["email.send"])
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="The actor's named arguments; its schema is at `/v1/actors/{name}`.",
    )
    id: Word | None = Field(
        default=None,
        description="The job's id; a new UUIDv7 by default. The same id twice is the same job.",
    )
    queue: Word | None = Field(
        default=None,
        description="The queue whose workers run it; by default the one its actor is declared for.",
    )
    delay: Seconds | None = Field(default=None, description="Not before so many seconds from now.")
    at: Time | None = Field(default=None, description="Not before this time, instead of `delay`.")
    expires_in: Seconds | None = Field(
        default=None, description="Not to be started after so many seconds from now."
    )
    expires_at: Time | None = Field(
        default=None, description="Not to be started after this time, instead of `expires_in`."
    )
    priority: int | None = Field(default=None, ge=0, le=255)
    max_retries: int | None = Field(
        default=None, ge=0, le=1000, description="Replaces the actor's own limit."
    )
    correlation_id: Word | None = Field(
        default=None, description="What the job belongs to, such as an order; jobs are found by it."
    )
    idempotency_key: Word | None = Field(
        default=None,
        description="Jobs of one actor with the same key have their effects once. For sending a "
        "request again safely there is the header `Idempotency-Key`.",
    )
    once: bool = Field(
        default=False, description="Its database effects happen once, however often it is tried."
    )
    unique_for: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="Jobs of the actor with the same `idempotency_key`, or else the same "
        "arguments, that are published within so many seconds are one job.",
    )
    unique_until: Literal["started", "done"] | None = Field(
        default=None, description="Those published before this one has got so far are one job."
    )
    on_conflict: Literal["skip", "replace"] = Field(
        default="skip", description="Which of them runs: the first, or the last."
    )


class Batch(_In):
    """Jobs to publish together: all of them, or none."""

    jobs: list[NewJob] = Field(min_length=1, max_length=MAX_BATCH)


class Accepted(BaseModel):
    """A job that is kept: it will come to an end, and `GET /v1/jobs/{id}` finds it."""

    id: str
    state: State
    actor: str
    queue: str = Field(description="The queue whose workers run it.")
    due_at: datetime | None = None
    existed: bool = Field(
        default=False, description="It had been published before, under the same id."
    )


class AcceptedBatch(BaseModel):
    """The jobs of a batch, in its order."""

    jobs: list[Accepted]


# ------------------------------------------------------------------------------------------- actors


class Actor(BaseModel):
    """What can be published."""

    name: str
    queue: str = Field(description="The queue that its jobs go to unless they say otherwise.")
    summary: str
    time_limit: float | None = Field(description="Seconds that a run may take.")
    max_retries: int
    arguments: dict[str, Any] = Field(description="The JSON Schema of its arguments.")


class ActorList(BaseModel):
    """All actors, by name."""

    actors: list[Actor]


# ------------------------------------------------------------------------------------------- queues


class Queue(BaseModel):
    """A work queue, as RabbitMQ describes it; its statistics may be 5 s old."""

    name: str
    ready: int = Field(description="Jobs that wait for a worker.")
    unacked: int = Field(description="Jobs that workers hold.")
    consumers: int
    publish_rate: float = Field(description="Jobs per second that come in.")
    deliver_rate: float = Field(description="Jobs per second that go to workers.")
    dead: int = Field(description="Dead letters that are not stored yet.")
    quarantined: int = Field(description="Jobs that have killed a worker and run alone.")
    oldest_at: datetime | None = Field(
        default=None, description="When the oldest job that waits was created, by the ledger."
    )


class QueueList(BaseModel):
    """The queues."""

    queues: list[Queue]
    delayed: int = Field(description="Jobs that wait in the delay wheel, and wheel copies.")
    ledger: int = Field(description="Messages that the recorder has not folded yet.")
    unroutable: int = Field(description="Messages that no queue wanted, not stored yet.")


# --------------------------------------------------------------------------------- keys and the log


class NewKey(_In):
    """A key to make."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(kept)] = Field(
        description="What it is for, or whose it is."
    )
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(min_length=1, max_length=4)
    expires_at: Time | None = None


class KeyInfo(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    state: str = Field(description="valid, revoked or expired")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class NewKeyAnswer(BaseModel):
    """A key that was made. This is the only time that `token` can be seen."""

    key: KeyInfo
    token: str


class KeyList(BaseModel):
    """All keys, the newest first."""

    keys: list[KeyInfo]


class AuditQuery(BaseModel):
    """Which page of the audit log."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200)
    before: int | None = Field(
        default=None, ge=1, le=2**63 - 1, description="`next` of the page before."
    )


class AuditLine(BaseModel):
    """Who changed what, or tried to."""

    id: int
    at: datetime
    who: str = Field(description="`key:<id>`, `cli:<user>@<host>`, or `anonymous`")
    action: str
    target: str | None
    outcome: str = Field(description="done or refused")
    detail: dict[str, Any] | None
    address: str | None


class AuditPage(BaseModel):
    """A page of the log, the newest first."""

    entries: list[AuditLine]
    next: int | None = Field(description="What `before` is for the next page.")
