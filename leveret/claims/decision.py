"""Unique jobs: whether a job may start, or another one stands for it. Pure.

Jobs of one actor with the same key (their idempotency key, or else a digest of their arguments) are
told apart by *when they were published*, and the question is put when one of them is about to
start. It ends as ``cancelled``, with the other's id in its reason, when the other makes it
redundant:

``on_conflict="skip"``: the first one runs. Let S be the job with the key that started last. A job
that was published

- before S started (``unique_until="started"``): whatever it asked for, S came after it was asked;
- before S ended (``unique_until="done"``), or while S still runs or waits for its next attempt;
- less than ``unique_for`` after S was published, or before S was

is redundant. With both options, it is when either says so. When S ends badly (dead, expired,
cancelled), it stands for nobody any more, and the next one runs.

``on_conflict="replace"``: the last one runs (debounce, when it is published with a delay). A job
gives way to one that was published after it, unless that one has already ended badly; with
``unique_for``, only to one that was published less than that after it. A job that has started is
not stopped.

A replay counts as published when it is delivered, since somebody wants it now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

__all__ = ["Published", "Standing", "Wish", "decide"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A job, and when it was published; in that order, ids decide between equal times."""

    job_id: str
    at: datetime

    def is_after(self, other: Published) -> bool:
        """Tell whether it was published after another."""
        return (self.at, self.job_id) > (other.at, other.job_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The job with the key that started last, and has not ended badly."""

    job: Published
    started_at: datetime
    #: None while it runs, or waits for its next attempt.
    done_at: datetime | None = None
    #: Without news, it is believed to run, or to run again, until then.
    held_until: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """The job that is about to start, and what it is unique in."""

    job: Published
    period: timedelta | None = None
    until: str | None = None
    on_conflict: str = "skip"


def decide(
    wish: Wish, standing: Standing | None, later: Iterable[Published], now: datetime
) -> str | None:
    """Return why a job is redundant; None when it may start.

    ``later`` are other jobs with the key of which is known when they were published; only
    ``replace`` looks at them. ``now`` is by the clock of the database, like every time of
    ``standing`` but when it was published.
    """
    if standing is not None and standing.job.job_id == wish.job.job_id:
        standing = None
    if wish.on_conflict == "replace":
        others = [*later] if standing is None else [*later, standing.job]
        return _replaced(wish, others)
    if standing is not None and _stands_for(standing, wish, now):
        return f"duplicate of {standing.job.job_id}"
    return None


def _stands_for(standing: Standing, wish: Wish, now: datetime) -> bool:
    published = wish.job.at
    if wish.period is not None and published - standing.job.at < wish.period:
        return True
    if wish.until == "started":
        return published <= standing.started_at
    if wish.until == "done":
        if standing.done_at is None:
            return now < standing.held_until
        return published <= standing.done_at
    return False


def _replaced(wish: Wish, others: list[Published]) -> str | None:
    better = [
        other
        for other in others
        if other.job_id != wish.job.job_id
        and other.is_after(wish.job)
        and (wish.period is None or other.at - wish.job.at < wish.period)
    ]
    if not better:
        return None
    latest = better[0]
    for other in better[1:]:
        if other.is_after(latest):
            latest = other
    return f"replaced by {latest.job_id}"
