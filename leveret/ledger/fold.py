"""Folding: from the events of jobs to one change of each job's rows. Pure.

A row says where the *newest* event of a job has left it. Which of two events is newer does not
depend on which came first: they are compared by ``(run, settled, attempt, event_at, kind)``.

- A higher ``run`` (a replay) is newer than all of an earlier run.
- Within a run, ``settled`` comes first: an end beats all that something follows, whatever the
  attempt, and success beats every other end. A job that was delivered twice, and died once, has
  succeeded.
- Then the attempt, the time of the event, and for equal times its kind.

The job itself (the tap) and what only tells that something is so have no time, and are older than
all that has one. What was published is filled in where it is missing, by the first that tells it.

So any order, any repetition and any cut into batches of a job's events leads to the same rows, as
long as the merge in the database (`leveret.ledger.writer`) compares alike. The same holds for
attempts: one for each run of the actor, whose newer state is the greater ``(rank, ended_at,
due_at)``, and for progress, of which the latest counts.
"""

from __future__ import annotations

from leveret.ledger.event import AttemptEvent, Content, JobEvent, Progress, Standing

__all__ = ["AttemptKey", "JobChange", "fold", "is_newer"]

#: The run, the attempt, and when it started.
AttemptKey = tuple[int, int, float]


class JobChange:
    """What a batch of events says about one job."""

    __slots__ = ("actor", "attempts", "content", "id", "progress", "queue", "standing")

    def __init__(self, event: JobEvent) -> None:
        self.id = event.id
        self.standing: Standing = event.standing
        self.content: Content | None = event.content
        self.actor = event.actor
        self.queue = event.queue
        self.progress: Progress | None = event.progress
        attempt = event.attempt
        self.attempts: dict[AttemptKey, AttemptEvent] | None = (
            None if attempt is None else {attempt[:3]: attempt}
        )

    def add(self, event: JobEvent) -> None:
        """Take in one more event of the same job."""
        if event.standing[:5] > self.standing[:5]:
            self.standing = event.standing
        if self.content is None:
            self.content = event.content
        if self.actor is None:
            self.actor = event.actor
        if self.queue is None:
            self.queue = event.queue
        attempt = event.attempt
        if attempt is not None:
            if self.attempts is None:
                self.attempts = {attempt[:3]: attempt}
            else:
                known = self.attempts.get(attempt[:3])
                if known is None or is_newer(attempt, known):
                    self.attempts[attempt[:3]] = attempt
        progress = event.progress
        if progress is not None and (self.progress is None or progress.at > self.progress.at):
            self.progress = progress


def fold(changes: dict[str, JobChange], event: JobEvent) -> None:
    """Take an event into the changes of its batch."""
    change = changes.get(event.id)
    if change is None:
        changes[event.id] = JobChange(event)
    else:
        change.add(event)


def is_newer(one: AttemptEvent, other: AttemptEvent) -> bool:
    """Tell whether ``one`` says more of an attempt than ``other``."""
    return _weight(one) > _weight(other)


def _weight(attempt: AttemptEvent) -> tuple[int, float, float]:
    return attempt.rank, attempt.ended_at or 0.0, attempt.due_at or 0.0
