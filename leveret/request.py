"""What a caller asks for, turned into a job: shared by the publisher and the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, TypedDict

from leveret.errors import InvalidJob
from leveret.message import Job, Reason, arguments_key, encode_arguments, new_id

__all__ = ["Named", "Options", "due_at", "keyed", "make_job", "period"]


class Named(Protocol):
    """What may stand for an actor's name: a declared actor."""

    @property
    def actor_name(self) -> str:
        """The name under which it is declared."""
        ...


class Options(TypedDict, total=False):
    """The options of a job, as `leveret.publisher.Publisher.publish` explains them."""

    delay: timedelta | float | None
    at: datetime | None
    queue: str | None
    priority: int | None
    correlation_id: str | None
    expires: timedelta | float | datetime | None
    max_retries: int | None
    idempotency_key: str | None
    once: bool
    unique_for: timedelta | float | None
    unique_until: Literal["started", "done"] | None
    on_conflict: Literal["skip", "replace"]
    job_id: str | None
    traceparent: str | None
    tracestate: str | None


def make_job(
    actor: str | Named,
    arguments: Mapping[str, Any] | None,
    *,
    now: float,
    app_id: str | None = None,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    expires: timedelta | float | datetime | None = None,
    job_id: str | None = None,
    unique_for: timedelta | float | None = None,
    **fields: Any,
) -> Job:
    """Put a job together; ``now`` (seconds since 1970) is what relative times count from.

    Raises `InvalidJob` for times that contradict each other or lead nowhere. The rest is checked
    when the job is encoded.
    """
    job = Job(
        actor=actor if isinstance(actor, str) else actor.actor_name,
        arguments={} if arguments is None else arguments,
        id=job_id or new_id(),
        due_at=due_at(now, delay, at),
        expires_at=_expires_at(now, expires),
        app_id=app_id,
        unique_for=period(unique_for),
        **fields,
    )
    return keyed(job) if job.is_unique else job


def keyed(job: Job) -> Job:
    """Give a unique job a key, if it has none: by it, the ledger knows of later ones."""
    if not job.is_unique or job.idempotency_key is not None:
        return job
    return replace(job, idempotency_key=arguments_key(encode_arguments(job.arguments)))


def period(value: timedelta | float | None) -> timedelta | None:
    """Read how long a job is unique for; raises `InvalidJob`."""
    if value is None or isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidJob(
            Reason.BAD_PROPERTY, f"unique_for is a timedelta, or seconds, not {value!r}"
        ) from None


def due_at(now: float, delay: timedelta | float | None, at: datetime | None) -> datetime | None:
    """Turn a delay from ``now`` (seconds since 1970), or a time, into a time."""
    if delay is not None and at is not None:
        raise InvalidJob(Reason.BAD_PROPERTY, "give either delay or at, not both")
    if delay is None:
        return at
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if seconds < 0:
        raise InvalidJob(Reason.BAD_PROPERTY, f"a delay must not be negative, not {delay!r}")
    return None if seconds == 0 else _moment(now + seconds, "delay", delay)


def _moment(seconds: float, name: str, value: object) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidJob(
            Reason.BAD_PROPERTY, f"{name} leads to no date in the calendar: {value!r}"
        ) from None


def _expires_at(now: float, expires: timedelta | float | datetime | None) -> datetime | None:
    if expires is None or isinstance(expires, datetime):
        return expires
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    return _moment(now + seconds, "expires", expires)
