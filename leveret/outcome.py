"""What an actor's run leads to: one value, from which everything else follows.

==================  ================================================================  =============
outcome             what the settler publishes before it acks                         state
==================  ================================================================  =============
`Succeeded`         the outcome record                                                succeeded
`Retry`             the record, and the job's copy into the delay wheel               retrying
`Snooze`            the record, and the job's copy into the delay wheel               scheduled
`Dead`              the record, and the dead letter                                   dead
`Expired`           the record, and the dead letter                                   expired
`Cancelled`         the record                                                        cancelled
`Quarantine`        the record, and the job's copy into the quarantine lane           queued
`Returned`          the job's copy into its queue                                     queued
==================  ================================================================  =============
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from leveret.message import Reason

__all__ = [
    "Cancelled",
    "Dead",
    "Expired",
    "Outcome",
    "Quarantine",
    "Retry",
    "Returned",
    "Snooze",
    "Succeeded",
]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The actor returned; or another job, ``done_by``, has had the effects of this one."""

    result: object = None
    #: Where the result is kept instead, if it is large (`leveret.results.ResultStore`).
    ref: str | None = None
    #: Why it is not kept.
    lost: str | None = None
    #: Null when it is this job.
    done_by: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The run failed, and another attempt follows after ``delay``."""

    delay: timedelta
    error: BaseException


@dataclass(frozen=True, slots=True)
class Snooze:
    """The job is put off for ``delay``, without using an attempt."""

    delay: timedelta
    why: str = ""


@dataclass(frozen=True, slots=True)
class Dead:
    """The job is given up; ``error`` says in full what ``reason`` says in a word."""

    reason: Reason
    error: BaseException


@dataclass(frozen=True, slots=True)
class Expired:
    """The job's time was over before it could start."""

    detail: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job was called off before it started, or another one stands for it."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The delivery has killed ``kills`` workers, and goes to the lane where it runs alone."""

    kills: int


@dataclass(frozen=True, slots=True)
class Returned:
    """The worker is ending, and had not started the job.

    It goes back as a copy: what `basic.nack` gives back, the broker charges with a delivery, and a
    rolling restart would make suspects of jobs that only waited.
    """

    #: Deaths of workers that the delivery is charged with so far.
    kills: int = 0


Outcome = Succeeded | Retry | Snooze | Dead | Expired | Cancelled | Quarantine | Returned
