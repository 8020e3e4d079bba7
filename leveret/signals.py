"""What an actor raises to decide its own outcome.

An actor that returns has succeeded; one that raises an ordinary exception is retried by its
policy. These three say something more precise, and are not errors of the actor:

======================  =====================================================================
``raise Retry(...)``    run again, using an attempt, after ``after`` or the actor's backoff
``raise Snooze(30)``    run again in 30 s, without using an attempt
``raise Dead("why")``   no retry can help: move the job to its dead letters, with the reason
======================  =====================================================================
"""

from __future__ import annotations

from datetime import timedelta

__all__ = ["Dead", "JobSignal", "Retry", "Snooze"]


def _as_timedelta(value: timedelta | float) -> timedelta:
    delay = value if isinstance(value, timedelta) else timedelta(seconds=value)
    if delay < timedelta(0):
        raise ValueError(f"a delay must not be negative, not {value!r}")
    return delay


class JobSignal(Exception):  # noqa: N818 - a signal is not an error
    """Base of what an actor may raise to decide its own outcome."""


class Retry(JobSignal):
    """Ask for another attempt.

    ``after`` (a ``timedelta``, or seconds) replaces the actor's backoff for this attempt. When the
    attempts are used up, the job is dead like after any other failure.
    """

    def __init__(self, why: str = "", *, after: timedelta | float | None = None) -> None:
        super().__init__(why)
        self.after = None if after is None else _as_timedelta(after)


class Snooze(JobSignal):
    """Put the job off for ``delay`` (a ``timedelta``, or seconds) without using an attempt."""

    def __init__(self, delay: timedelta | float, why: str = "") -> None:
        super().__init__(why)
        self.delay = _as_timedelta(delay)


class Dead(JobSignal):
    """Give the job up now: it becomes a dead letter with this reason, and is not retried."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
