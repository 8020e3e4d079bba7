"""What the ledger tells of the jobs of one run, folded into a story for each. Pure.

Its source is the ledger, not the demonstration's own memory: the copy of every job that the tap of
the entry exchanges brings in, the workers' outcome records, and the dead letters. The same report
twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Book", "Letter", "Note", "Record", "Story"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One outcome record."""

    job: str
    event: str
    attempt: int = 1
    worker: str = ""
    due_at: float | None = None
    reason: str | None = None
    error: str | None = None
    result: Any = None


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One dead letter."""

    job: str
    queue: str
    reason: str
    error: str


#: What the observer hands over: an outcome record, a dead letter, or the id of a tapped job.
Note = Record | Letter | str


@dataclass
class Story:
    """What is known of one job."""

    is_tapped: bool = False
    #: ``succeeded`` or ``dead``, once an outcome record says so.
    outcome: str | None = None
    letter: Letter | None = None
    result: Any = None
    #: The attempts that were followed by a retry, with the time when the next is due.
    retries: dict[int, float] = field(default_factory=dict)
    quarantined: bool = False
    #: The workers that reported having it, in order.
    workers: list[str] = field(default_factory=list)

    @property
    def is_dead(self) -> bool:
        """Whether there is a dead letter of it."""
        return self.letter is not None

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end, as every source says."""
        if self.letter is None:
            return self.is_tapped and self.outcome == "succeeded"
        unrecorded = self.letter.queue == "leveret.unroutable"
        return self.is_tapped and (unrecorded or self.outcome is not None)


class Book:
    """The stories of one run's jobs."""

    def __init__(self, run: str) -> None:
        self._prefix = f"{run}-"
        self.stories: dict[str, Story] = {}
        #: Reports about jobs that are not of this run.
        self.strangers = 0
        #: Jobs that had two different ends.
        self.contradictions: list[str] = []

    def __getitem__(self, job: str) -> Story:
        return self.stories.get(job) or Story()

    def enter(self, note: Note) -> bool:
        """Take note; tell whether that was news."""
        job = note if isinstance(note, str) else note.job
        if not job.startswith(self._prefix):
            self.strangers += 1
            return False
        story = self.stories.setdefault(job, Story())
        match note:
            case str():
                news, story.is_tapped = not story.is_tapped, True
                return news
            case Letter():
                news, story.letter = story.letter is None, note
                return news
            case Record():
                return self._record(story, note)

    def _record(self, story: Story, record: Record) -> bool:
        if record.worker and record.worker not in story.workers:
            story.workers.append(record.worker)
        match record.event:
            case "succeeded" | "dead" | "expired" | "cancelled":
                if story.outcome not in (None, record.event):
                    self.contradictions.append(record.job)
                news = story.outcome is None
                story.outcome = record.event
                story.result = record.result if story.result is None else story.result
                return news
            case "retrying":
                news = record.attempt not in story.retries
                story.retries[record.attempt] = record.due_at or 0.0
                return news
            case "quarantined":
                news, story.quarantined = not story.quarantined, True
                return news
        return True
