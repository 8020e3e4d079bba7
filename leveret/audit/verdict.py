"""Comparing the two sides; pure.

A job that is live in the ledger is in exactly one place: the outbox, the delay wheel, or a work
queue (waiting, being run, or in the quarantine lane). RabbitMQ counts the messages of a place but
does not name them without disturbing them. So a place is compared by number first; only where it
holds fewer messages than the ledger has jobs for it, jobs are missing: all of them when the place
is empty, otherwise the ones that have waited longest, since a queue is first in, first out.

More messages than jobs are no loss: a copy that RabbitMQ delivered twice, a job that was published
without an id, or one whose end was recorded while its message is still to be acked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from leveret.ledger.state import LIVE, State

__all__ = ["WHEEL", "Finding", "Kind", "LiveJob", "Report", "Snapshot", "Subject", "judge"]

#: The place of jobs that are not due yet.
WHEEL = "(delay wheel)"
#: The place of jobs whose queue is not known: no actor of that name is declared here.
UNKNOWN = "(unknown queue)"


class Kind(StrEnum):
    """What is wrong with a job, or with something about it."""

    #: The ledger has it live, and no queue does.
    LOST = "lost"
    #: It is said to be running by a worker that is gone.
    NOT_RUNNING = "not-running"
    #: It is dead, and there is no dead letter of it.
    NO_DEAD_LETTER = "no-dead-letter"
    #: There is a dead letter of its present run, and the ledger has it live.
    NOT_DEAD = "not-dead"
    #: It has succeeded, and its dead letter is still open.
    NOT_SUPERSEDED = "not-superseded"
    #: It has ended, and a claim for it is still held.
    CLAIM_HELD = "claim-held"
    #: It could not be published from the outbox.
    OUTBOX_FAILED = "outbox-failed"
    #: It has ended, and the outbox would publish it still.
    OUTBOX_STALE = "outbox-stale"
    #: There is a dead letter of it, and no row.
    NO_ROW = "no-row"
    #: A schedule's slot was passed over, so that its job was never published.
    SCHEDULE_GAP = "schedule-gap"
    #: A schedule's slot was fired, and nobody knows its job.
    SLOT_WITHOUT_JOB = "slot-without-job"
    #: Slots of a schedule wait for a scheduler that decides on them.
    SCHEDULE_OVERDUE = "schedule-overdue"
    #: What a schedule is cannot be read.
    SCHEDULE_UNREADABLE = "schedule-unreadable"


#: What `repair` does about each.
REMEDIES: Mapping[Kind, str] = {
    Kind.LOST: "publish it again under its id, from the ledger's copy",
    Kind.NOT_RUNNING: "say that it waits; the broker has its message",
    Kind.NO_DEAD_LETTER: "store a dead letter from the ledger's copy",
    Kind.NOT_DEAD: "say that it is dead, with the dead letter's reason",
    Kind.NOT_SUPERSEDED: "close the dead letter as superseded",
    Kind.CLAIM_HELD: "let go of the claim",
    Kind.OUTBOX_FAILED: "try once more to publish it",
    Kind.OUTBOX_STALE: "take it out of the outbox",
    Kind.NO_ROW: "make the row from the dead letter",
    Kind.SCHEDULE_GAP: "fire the slot now",
    Kind.SLOT_WITHOUT_JOB: "publish the job again under its id",
    Kind.SCHEDULE_OVERDUE: "nothing: start a scheduler, which decides as the schedule says",
    Kind.SCHEDULE_UNREADABLE: "nothing: change the schedule, or remove it",
}


@dataclass(frozen=True, kw_only=True)
class LiveJob:
    """A job that the ledger has live, as far as its place depends on it."""

    id: str
    state: State
    actor: str | None
    #: The pool, where the ledger knows it.
    queue: str | None
    due_at: datetime | None
    #: When it came into its present place, about.
    since: datetime
    #: The worker that is said to run it.
    worker: str | None = None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A job, or a thing that belongs to one, with what there is to say."""

    id: str
    detail: str = ""
    #: The schedule and the slot that it belongs to, where that is what is wrong.
    schedule: str | None = None
    slot: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Both sides, read at about the same time."""

    taken_at: datetime
    #: Jobs by state, all of them.
    states: Mapping[State, int]
    live: Sequence[LiveJob]
    #: Ids of the jobs in the outbox.
    outbox: frozenset[str]
    #: Those of them that the ledger does not know yet.
    outbox_unknown: frozenset[str]
    #: Messages by pool: ready, unacked and in quarantine.
    queues: Mapping[str, int]
    wheel: int
    #: Messages that the recorder has not read: ledger, dead letters, unroutable.
    unread: int
    #: Workers whose heartbeats have come lately.
    workers: frozenset[str]
    #: Dead letters by state.
    letters: Mapping[str, int]
    #: The queue of each declared actor.
    actors: Mapping[str, str] = field(default_factory=dict)
    #: What was found by looking at rows alone.
    found: Mapping[Kind, Sequence[Subject]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that does not hold."""

    kind: Kind
    #: The job's id; of what concerns a whole schedule, its name.
    subject: str
    detail: str
    schedule: str | None = None
    slot: datetime | None = None

    @property
    def remedy(self) -> str:
        """What `repair` would do."""
        return REMEDIES[self.kind]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an audit says."""

    taken_at: datetime
    published: int
    states: Mapping[State, int]
    live: int
    #: Where the live jobs are: place -> (what the ledger has for it, what is there).
    places: Mapping[str, tuple[int, int]]
    letters: Mapping[str, int]
    unread: int
    findings: Sequence[Finding]

    @property
    def surplus(self) -> int:
        """Messages beyond the jobs that the ledger has live."""
        return sum(max(0, there - known) for known, there in self.places.values())

    @property
    def is_settled(self) -> bool:
        """Whether the recorder had read everything, so that the numbers are exact."""
        return self.unread == 0

    @property
    def holds(self) -> bool:
        """Whether every job is accounted for."""
        return self.is_settled and not self.findings


def judge(snapshot: Snapshot) -> Report:
    """Compare what the ledger says with what is there."""
    by_place: dict[str, list[LiveJob]] = {}
    for job in snapshot.live:
        by_place.setdefault(_place(job, snapshot), []).append(job)
    in_outbox = by_place.pop("(outbox)", [])
    there = {**snapshot.queues, WHEEL: snapshot.wheel}
    # A job with a dead letter of its present run is in no queue, and is not to be run again.
    dead = {subject.id for subject in snapshot.found.get(Kind.NOT_DEAD, ())}
    findings = [lost for lost in _missing(by_place, there) if lost.subject not in dead]
    places = {
        "(outbox)": (len(in_outbox) + len(snapshot.outbox_unknown), len(snapshot.outbox)),
        **{
            place: (len(by_place.get(place, ())), there.get(place, 0))
            for place in sorted({*by_place, *there})
        },
    }
    lost = {finding.subject for finding in findings}
    findings += [
        Finding(kind=Kind.NOT_RUNNING, subject=job.id, detail=f"by {job.worker}, which is gone")
        for job in snapshot.live
        if job.state is State.RUNNING
        and job.id not in lost
        and job.worker is not None
        and job.worker not in snapshot.workers
    ]
    findings += [
        Finding(
            kind=kind,
            subject=subject.id,
            detail=subject.detail,
            schedule=subject.schedule,
            slot=subject.slot,
        )
        for kind, subjects in snapshot.found.items()
        for subject in subjects
    ]
    live = sum(snapshot.states.get(state, 0) for state in LIVE) + len(snapshot.outbox_unknown)
    return Report(
        taken_at=snapshot.taken_at,
        published=sum(snapshot.states.values()) + len(snapshot.outbox_unknown),
        states=snapshot.states,
        live=live,
        places={place: numbers for place, numbers in places.items() if any(numbers)},
        letters=snapshot.letters,
        unread=snapshot.unread,
        findings=tuple(findings),
    )


def _place(job: LiveJob, snapshot: Snapshot) -> str:
    """Say where a job must be."""
    if job.id in snapshot.outbox:
        return "(outbox)"
    waits = job.state in (State.SCHEDULED, State.RETRYING)
    if waits and job.due_at is not None and job.due_at > snapshot.taken_at:
        return WHEEL
    return job.queue or snapshot.actors.get(job.actor or "", UNKNOWN)


def _missing(by_place: Mapping[str, list[LiveJob]], there: Mapping[str, int]) -> list[Finding]:
    """Name the jobs that their place does not hold.

    One queue's surplus says nothing about another queue. But a job that is just becoming due may
    be in the wheel or already in its queue, whatever the clocks say, and one whose actor is not
    declared here is in some queue.
    """
    spare = {p: max(0, count - len(by_place.get(p, ()))) for p, count in there.items()}
    findings = []
    for place, jobs in sorted(by_place.items()):
        deficit = len(jobs) - there.get(place, 0)
        for other, count in list(spare.items()):
            if deficit > 0 and (place in (WHEEL, UNKNOWN) or other == WHEEL):
                excused = min(deficit, count)
                spare[other] = count - excused
                deficit -= excused
        oldest = sorted(jobs, key=lambda job: (job.state is State.RUNNING, job.since, job.id))
        findings += [
            Finding(
                kind=Kind.LOST,
                subject=job.id,
                detail=f"{job.state} since {job.since:%Y-%m-%d %H:%M:%S}; {place} holds "
                f"{there.get(place, 0)} messages for {len(jobs)} jobs",
            )
            for job in oldest[: max(0, deficit)]
        ]
    return findings
