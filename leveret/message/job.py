"""A job, as it is held in Python, whatever it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from leveret import names
from leveret.errors import InvalidJob
from leveret.message.reason import Reason

__all__ = ["Job", "actor_name"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job, as it is published and as it is received."""

    #: Name of the actor that runs it.
    actor: str
    #: The actor's named arguments.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    #: Positional arguments; only Dramatiq's envelope has them.
    positional: tuple[Any, ...] = ()
    id: str
    #: The pool that runs it; None leaves it to the routing table.
    queue: str | None = None
    #: Not before this time.
    due_at: datetime | None = None
    #: Not after this time.
    expires_at: datetime | None = None
    #: 1 for the first run.
    attempt: int = 1
    #: 0 for the job as it was published, one more for every replay.
    run: int = 0
    #: Replaces the actor's own limit.
    max_retries: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    app_id: str | None = None
    idempotency_key: str | None = None
    once: bool = False
    #: Jobs of the actor with the same key that are published within this time, which is whole
    #: seconds, are one job.
    unique_for: timedelta | None = None
    #: Those published before this job has ``started``, or is ``done``, are the same job as it.
    unique_until: str | None = None
    #: Which of them runs: the first (``skip`` the others), or the last (``replace`` the others).
    on_conflict: str = "skip"
    traceparent: str | None = None
    tracestate: str | None = None
    #: The schedule that published it, and the moment of that schedule that it stands for.
    schedule: str | None = None
    slot: datetime | None = None
    #: True when the publisher gave no id and this one was made up on receipt.
    id_assigned: bool = False

    @property
    def key(self) -> str:
        """The routing key, without the digits of a delay."""
        return f"{self.queue or names.ANY_QUEUE}.{self.actor}"

    @property
    def is_unique(self) -> bool:
        """Whether it may be left out because another job stands for it."""
        return (
            self.unique_for is not None
            or self.unique_until is not None
            or self.on_conflict != "skip"
        )


def actor_name(name: str) -> str:
    """Read the name of an actor; raises `InvalidJob` when it cannot be one."""
    if not name:
        raise InvalidJob(
            Reason.UNKNOWN_ACTOR,
            "neither the property type nor the routing key names an actor",
        )
    if not names.is_actor_name(name):
        raise InvalidJob(Reason.UNKNOWN_ACTOR, f"{name[:200]!r} cannot be the name of an actor")
    return name
