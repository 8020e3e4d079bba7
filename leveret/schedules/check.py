"""Whether a schedule makes sense: in itself, and here. Pure.

What is refused is refused with the field that it is about, before anything is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from leveret.errors import InvalidJob, InvalidSchedule
from leveret.message import MAX_BODY_BYTES, Reason
from leveret.names import is_actor_name, is_queue_name
from leveret.outbox.row import entry_of
from leveret.schedules.definition import Definition
from leveret.schedules.job import job_of

__all__ = ["OPTIONS", "Actors", "check", "check_here"]

#: What may be said of the jobs of a schedule: not what each slot has for itself.
OPTIONS = (
    "priority",
    "max_retries",
    "once",
    "idempotency_key",
    "unique_for",
    "unique_until",
    "on_conflict",
    "correlation_id",
)
_LONGEST_DESCRIPTION = 1000
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9998, 1, 1, tzinfo=UTC)
#: A slot like any other.
_SLOT = datetime(2026, 1, 1, tzinfo=UTC)


class Actors(Protocol):
    """The actors that are loaded here, as `leveret.broker.LeveretBroker` has them."""

    @property
    def actors(self) -> Mapping[str, Any]:
        """By their names."""
        ...

    def signature(self, actor: str) -> Any:
        """Return the signature of one, whose ``faults`` say what is wrong with arguments."""
        ...


def check(definition: Definition, *, limit: int = MAX_BODY_BYTES) -> None:
    """Refuse a definition that makes no sense anywhere; raises `InvalidSchedule`.

    ``limit`` is the largest body of a job, in bytes. The definition and its trigger have checked
    themselves: this is about the job.
    """
    _check_names(definition)
    _check_times(definition)
    _check_job(definition, limit)


def check_here(
    definition: Definition, *, queues: Collection[str], actors: Actors | None
) -> list[str]:
    """Refuse what makes no sense in this configuration; return what could not be checked.

    ``queues`` are the work queues, ``actors`` what is loaded, or None. Raises `InvalidSchedule`
    for a queue that there is none of, and for arguments that the actor would refuse.
    """
    if definition.queue is not None and definition.queue not in queues:
        raise InvalidSchedule(
            "queue", definition.queue, f"there is none; there are {', '.join(queues)}"
        )
    if actors is None or definition.actor not in actors.actors:
        unknown = f"no actor is called {definition.actor!r} here (LEVERET_ACTORS)"
        return [f"{unknown}, so its arguments are not checked"]
    try:
        faults = actors.signature(definition.actor).faults(definition.arguments)
    except Exception as error:  # noqa: BLE001 - a validator of the actor's may raise anything
        raise InvalidSchedule(
            "arguments", definition.actor, f"they cannot be checked: {type(error).__name__}"
        ) from None
    if faults:
        words = "; ".join(
            f"{fault.pointer.lstrip('/') or 'arguments'}: {fault.detail}" for fault in faults
        )
        raise InvalidSchedule("arguments", definition.actor, f"the actor refuses them: {words}")
    return []


def _refuse_unless(holds: bool, field: str, value: object, reason: str) -> None:  # noqa: FBT001
    if not holds:
        raise InvalidSchedule(field, value, reason)


def _check_names(definition: Definition) -> None:
    queue, words = definition.queue, definition.description
    _refuse_unless(
        is_actor_name(definition.actor),
        "actor",
        definition.actor,
        "it is dotted words such as email.send",
    )
    _refuse_unless(
        queue is None or is_queue_name(queue),
        "queue",
        queue,
        "it is one lower-case word other than 'any'",
    )
    _refuse_unless(
        words is None or (len(words) <= _LONGEST_DESCRIPTION and "\0" not in words),
        "description",
        words,
        f"it has at most {_LONGEST_DESCRIPTION} characters, and no U+0000",
    )


def _check_times(definition: Definition) -> None:
    for field, moment in (("start", definition.start), ("end", definition.end)):
        _refuse_unless(
            moment is None or (_EARLIEST <= moment < _LATEST and moment.microsecond % 1000 == 0),
            field,
            moment,
            "it is a time from 1970 to 9997, in whole milliseconds",
        )


_OF_OPTIONS = (Reason.BAD_PROPERTY, Reason.BAD_HEADER)


def _check_job(definition: Definition, limit: int) -> None:
    """Put the job of a slot together, as whoever fires it will."""
    options = definition.options
    for name in options:
        _refuse_unless(
            name in OPTIONS,
            "options",
            name,
            f"the jobs of a schedule have no such option; there are {', '.join(OPTIONS)}",
        )
    unique = any(options.get(n) is not None for n in ("unique_for", "unique_until", "on_conflict"))
    _refuse_unless(
        options.get("idempotency_key") is None or unique,
        "options",
        "idempotency_key",
        "with one, only the first job of a schedule would have effects; "
        "each slot has an id of its own, so that `once` is enough",
    )
    try:
        entry_of(job_of(definition, _SLOT), now=_SLOT.timestamp(), limit=limit)
    except InvalidJob as error:
        field = "options" if error.reason in _OF_OPTIONS else "arguments"
        raise InvalidSchedule(field, definition.actor, str(error)) from None
