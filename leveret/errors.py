"""Everything that Leveret raises on purpose.

::

    LeveretError
    ├── ConfigurationError      a setting is missing or wrong
    ├── InvalidJob              a job, or a message that claims to be one, breaks the wire contract
    ├── PublishError            a job was not accepted by the broker
    │   ├── PublishTimeout      … within the time the caller gave (also a TimeoutError)
    │   ├── PublishRejected     … because the broker refused it
    │   ├── PublisherBlocked    … because the broker blocks publishers (memory or disk alarm)
    │   └── PublisherClosed     … because the publisher was closed
    ├── ClaimLost               another run has taken over the claim of this one
    ├── DatabaseUnavailable     PostgreSQL cannot be reached, or lacks Leveret's tables
    ├── ReplayRefused           dead letters cannot be replayed or discarded as it was asked
    ├── ScheduleError           a schedule cannot be made, changed or run as it was asked
    │   ├── InvalidSchedule     … because a part of it cannot be that (also a ValueError)
    │   ├── UnknownSchedule     … because there is none of that name
    │   ├── ScheduleExists      … because there is one of that name
    │   ├── ScheduleDeclared    … because code or a file says what it is
    │   └── BackfillRefused     … because it would fire too much, or what has not come yet
    ├── ResultError             a job has no result to give
    │   ├── JobFailed           … because it is dead
    │   ├── JobCancelled        … because it was cancelled
    │   ├── JobExpired          … because its time was over before it could start
    │   ├── ResultLost          … because what its actor returned was not kept
    │   └── ResultTimeout       … within the time the caller gave (also a TimeoutError)
    ├── TooManyWaiters          a process waits for as many jobs as it may
    ├── OutboxError             a job cannot be written into what was given as a transaction
    ├── TopologyError           the broker's objects are not those of the topology table
    └── ManagementError         the management API refused or failed

A message says what happened, with which value, and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "BackfillRefused",
    "ClaimLost",
    "ConfigurationError",
    "DatabaseUnavailable",
    "InvalidJob",
    "InvalidSchedule",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "LeveretError",
    "ManagementError",
    "OutboxError",
    "PublishError",
    "PublishRejected",
    "PublishTimeout",
    "PublisherBlocked",
    "PublisherClosed",
    "ReplayRefused",
    "ResultError",
    "ResultLost",
    "ResultTimeout",
    "ScheduleDeclared",
    "ScheduleError",
    "ScheduleExists",
    "TooManyWaiters",
    "TopologyError",
    "UnknownSchedule",
]


class LeveretError(Exception):
    """Root of all errors that Leveret raises."""


class ConfigurationError(LeveretError):
    """A setting is missing or wrong; the message names it and the remedy."""


class InvalidJob(LeveretError, ValueError):  # noqa: N818 - reads as a statement about the job
    """A job, or a message that claims to be one, breaks the wire contract.

    ``reason`` is a short stable word from `leveret.message.Reason`, fit for a header or a label.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ScheduleError(LeveretError):
    """A schedule cannot be made, changed or run as it was asked; nothing was changed."""


class InvalidSchedule(ScheduleError, ValueError):  # noqa: N818 - reads as a statement about it
    """A schedule, or a part of one, cannot be what was asked for; nothing was changed.

    ``field`` names the part (``name``, ``expression``, ``tz``, ``interval``, ``jitter``, …),
    ``value`` is what was given, ``reason`` says what is wrong with it and what is allowed.
    ``position`` is the column in ``value``, from 1, at which it goes wrong, where there is one.
    """

    def __init__(
        self, field: str, value: object, reason: str, *, position: int | None = None
    ) -> None:
        shown = value if isinstance(value, str) else str(value)
        if len(shown) > 100:
            shown = f"{shown[:100]}…"
        column = "" if position is None else f", column {position}"
        super().__init__(f"{field} {shown!r}{column}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason
        self.position = position

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way between processes: an exception's own needs the message alone."""
        return (_invalid_schedule, (self.field, self.value, self.reason, self.position))


def _invalid_schedule(
    field: str, value: object, reason: str, position: int | None
) -> InvalidSchedule:
    return InvalidSchedule(field, value, reason, position=position)


class PublishError(LeveretError):
    """A job was not accepted by the broker. ``job_id`` is the id it would have had."""

    def __init__(self, message: str, *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id


class PublishTimeout(PublishError, TimeoutError):  # noqa: N818 - a TimeoutError by another name
    """No confirm came in time. The job may or may not be in the broker.

    It is safe to publish again under the same ``job_id``: the same id is the same job.
    """


class PublishRejected(PublishError):  # noqa: N818 - says what the broker did
    """The broker refused the job: a full queue, or a permission that is missing.

    ``code`` is AMQP's reply code when the broker closed the channel over it, such as 403.
    """

    def __init__(self, message: str, *, job_id: str | None = None, code: int | None = None) -> None:
        super().__init__(message, job_id=job_id)
        self.code = code


class PublisherBlocked(PublishError):  # noqa: N818 - says the state it is in
    """The broker blocks publishers because of a memory or disk alarm."""


class PublisherClosed(PublishError):  # noqa: N818 - says the state it is in
    """The publisher was closed before the job was confirmed."""


class ClaimLost(LeveretError):  # noqa: N818 - says what happened
    """Another run has taken over the claim of this one, whose transaction was rolled back.

    Not a failure of the job: the other run has, or will have, the effects. An actor that gets it
    should let it pass.
    """


class DatabaseUnavailable(LeveretError):  # noqa: N818 - says the state it is in
    """PostgreSQL cannot be reached, or lacks Leveret's tables; the message says which."""


class ReplayRefused(LeveretError):  # noqa: N818 - says what was done with the request
    """Dead letters cannot be replayed or discarded as it was asked; nothing was changed.

    ``reason`` is a short stable word: ``nothing-matches``, ``edits-are-off``, ``bad-arguments``,
    ``too-many``, ``unknown-replay`` or ``not-running``.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UnknownSchedule(ScheduleError):  # noqa: N818 - says what was found
    """There is no schedule ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no schedule {name[:200]!r}; see `leveret schedules list`")
        self.name = name


class ScheduleExists(ScheduleError):  # noqa: N818 - says what was found
    """There is a schedule ``name`` already."""

    def __init__(self, name: str, origin: str) -> None:
        super().__init__(
            f"there is a schedule {name!r} already, by {origin}; change it, or choose another name"
        )
        self.name = name
        self.origin = origin


class ScheduleDeclared(ScheduleError):  # noqa: N818 - says what was found
    """What the schedule ``name`` is, code or a file says: it cannot be changed elsewhere.

    It can be paused, resumed, run and backfilled.
    """

    def __init__(self, name: str, origin: str) -> None:
        where = "a file of schedules" if origin == "file" else "code, next to its actor"
        super().__init__(
            f"the schedule {name!r} is declared in {where}: change it there; "
            "it can be paused, resumed, run and backfilled here"
        )
        self.name = name
        self.origin = origin


class BackfillRefused(ScheduleError):  # noqa: N818 - says what was done with the request
    """A backfill was refused, and nothing was fired.

    ``reason`` is a short stable word: ``too-many``, ``future`` or ``empty-range``.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ResultError(LeveretError):
    """A job has no result to give. ``job_id`` is its id."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailed(ResultError):  # noqa: N818 - says what happened
    """The job is dead: ``reason`` says why in a word, ``error`` in full, as far as it is known."""

    def __init__(
        self,
        message: str,
        *,
        job_id: str,
        reason: str | None = None,
        error_type: str | None = None,
        error: str | None = None,
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.reason = reason
        self.error_type = error_type
        self.error = error


class JobCancelled(ResultError):  # noqa: N818 - says what happened
    """The job was cancelled before it started."""


class JobExpired(ResultError):  # noqa: N818 - says what happened
    """The job's time was over before it could start."""


class ResultLost(ResultError):  # noqa: N818 - says what happened
    """The job has succeeded, but what its actor returned was not kept, or cannot be read."""


class ResultTimeout(ResultError, TimeoutError):  # noqa: N818 - a TimeoutError by another name
    """The job had not ended in time. It goes on; wait again under its id."""


class TooManyWaiters(LeveretError):  # noqa: N818 - says the state it is in
    """A process waits for as many jobs as it may."""


class OutboxError(LeveretError):
    """A job cannot be written into what was given as a transaction: it is none, or not known."""


class TopologyError(LeveretError):
    """The broker's objects are not those of the topology table."""


class ManagementError(LeveretError):
    """The management API refused a request or could not be reached."""
