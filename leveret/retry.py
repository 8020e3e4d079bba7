"""When a failed job runs again, and when it does not. Pure: clocks and dice are passed in."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dramatiq.errors import Retry as DramatiqRetry

from leveret import outcome, signals
from leveret.message import Job, Reason

__all__ = ["Backoff", "Policy", "decide"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """How long to wait before the next attempt: exponential, capped, with full jitter.

    The bound is ``base`` before the second attempt and doubles up to ``cap``; with ``jitter`` the
    wait is a random part of the bound, so that jobs which failed together do not come back
    together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    base: timedelta = timedelta(seconds=15)
    cap: timedelta = timedelta(hours=1)
    jitter: bool = True

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.base <= self.cap:
            raise ValueError(
                f"a backoff needs 0 <= base <= cap, not base {self.base} and cap {self.cap}"
            )

    def delay(self, attempt: int, dice: random.Random) -> timedelta:
        """Return the wait after ``attempt`` (1 for the first) has failed."""
        doublings = min(attempt - 1, 40)
        if self.base and doublings >= (self.cap // self.base).bit_length():
            bound = self.cap
        else:
            bound = min(self.cap, self.base * 2**doublings)
        return bound * dice.random() if self.jitter else bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How the failures of an actor are treated."""

    #: Attempts after the first.
    max_retries: int = 5
    backoff: Backoff = Backoff()
    #: Only these are retried.
    retry_on: tuple[type[BaseException], ...] = (BaseException,)
    #: These are not, whatever ``retry_on`` says.
    dead_on: tuple[type[BaseException], ...] = ()
    #: How long a run may take; None for ever.
    time_limit: timedelta | None = timedelta(minutes=10)
    #: Whether its jobs have their effects once, whatever each says.
    once: bool = False


def decide(
    error: BaseException, job: Job, policy: Policy, dice: random.Random
) -> outcome.Retry | outcome.Snooze | outcome.Dead:
    """Decide what follows from a run that raised ``error``."""
    match error:
        case signals.Snooze():
            return outcome.Snooze(error.delay, str(error))
        case signals.Dead():
            return outcome.Dead(Reason.REFUSED, error)
    limit = policy.max_retries if job.max_retries is None else job.max_retries
    asked_for = isinstance(error, signals.Retry | DramatiqRetry)
    if not asked_for and (
        isinstance(error, policy.dead_on) or not isinstance(error, policy.retry_on)
    ):
        return outcome.Dead(Reason.REFUSED, error)
    if job.attempt > limit:
        return outcome.Dead(Reason.EXHAUSTED, error)
    wanted = _wanted_delay(error)
    if wanted is None:
        wanted = policy.backoff.delay(job.attempt, dice)
    return outcome.Retry(wanted, error)


def _wanted_delay(error: Any) -> timedelta | None:
    """Return the delay that the error itself asks for, as by an HTTP ``Retry-After``."""
    match error:
        case signals.Retry():
            return error.after
        case DramatiqRetry():
            return None if error.delay is None else timedelta(milliseconds=error.delay)
    try:
        wanted = getattr(error, "retry_after", None)
    except Exception:  # noqa: BLE001 - an error that fails at giving a hint gives none
        return None
    if isinstance(wanted, timedelta):
        return max(wanted, timedelta(0))
    if isinstance(wanted, int | float) and not isinstance(wanted, bool) and 0 <= wanted < 3e7:
        return timedelta(seconds=wanted)
    return None
