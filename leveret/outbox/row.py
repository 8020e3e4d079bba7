"""A job as a row of ``leveret_outbox``. Pure.

A job that is due beyond the delay wheel's horizon stays in the table: ``hold_until`` is the time
from which on the wheel can take it. So does one that cannot be published, with ``infinity``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from leveret import wheel
from leveret.errors import InvalidJob
from leveret.message import (
    HEADERS,
    MAX_BODY_BYTES,
    Job,
    Reason,
    encode,
    encode_arguments,
)

__all__ = ["OPTIONS", "Entry", "entry_of", "held_until", "read_options"]

#: A job leaves for the wheel when it is due within this time: a day before it must.
_REACH: timedelta = wheel.HORIZON - timedelta(days=1)
#: The fields of a job that are AMQP properties, or headers of W3C.
_PLAIN = ("priority", "correlation_id", "app_id", "traceparent", "tracestate")
#: The fields that are headers of the contract.
_HEADERS = {h.attribute: h for h in HEADERS.values() if h.attribute != "due_at"}
#: The names that ``options`` may have.
OPTIONS = (*_PLAIN, *_HEADERS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A job as it is inserted."""

    job_id: str
    actor: str
    queue: str | None
    body: bytes
    #: JSON.
    options: str | None
    due_at: datetime | None
    #: None for a job that may leave at once.
    hold_until: datetime | None


def entry_of(job: Job, *, now: float, limit: int = MAX_BODY_BYTES) -> Entry:
    """Write a job as a row; raises `InvalidJob` for what the publisher would refuse, too.

    But for one thing: a job may be due beyond the wheel's horizon.
    """
    body = encode_arguments(job.arguments, limit=limit)
    hold = None
    if job.due_at is not None and job.due_at.tzinfo is not None:
        hold = held_until(job.due_at, now=now)
    encode(job if hold is None else replace(job, due_at=None), timestamp=now)
    if "\0" in job.id:
        raise InvalidJob(Reason.BAD_PROPERTY, f"id is kept as text, without U+0000, not {job.id!r}")
    options = _write_options(job)
    return Entry(
        job_id=job.id,
        actor=job.actor,
        queue=job.queue,
        body=body,
        options=json.dumps(options) if options else None,
        due_at=job.due_at,
        hold_until=hold,
    )


def held_until(due_at: datetime, *, now: float) -> datetime | None:
    """Return until when a job stays in the table; None when the wheel can take it now."""
    beyond = due_at.timestamp() - now > wheel.HORIZON.total_seconds()
    return due_at - _REACH if beyond else None


def _write_options(job: Job) -> dict[str, Any]:
    options = {name: value for name in _PLAIN if (value := getattr(job, name)) is not None}
    for name, header in _HEADERS.items():
        value = getattr(job, name)
        if value is not None and value != header.default:
            options[name] = header.write(value)
    read_options(options)
    return options


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read the column ``options``, as fields of a job; raises `InvalidJob`."""
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if name in _PLAIN:
            if name != "priority" and not isinstance(value, str):
                raise InvalidJob(
                    Reason.BAD_PROPERTY, f"{name} is a string, not {str(value)[:200]!r}"
                )
            fields[name] = value
            continue
        header = _HEADERS.get(name)
        if header is None:
            raise InvalidJob(
                Reason.BAD_PROPERTY,
                f"there is no option {name[:200]!r}; there are {', '.join(OPTIONS)}",
            )
        try:
            fields[name] = header.read(value)
        except (ValueError, OverflowError) as error:
            raise InvalidJob(
                Reason.BAD_HEADER, f"the option {name} is {str(value)[:200]!r}, not {error}"
            ) from None
    return fields
