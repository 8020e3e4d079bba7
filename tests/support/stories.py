"""Stories of jobs: events as they may be told, for tests of the ledger."""

from __future__ import annotations

import json

import pika
from hypothesis import strategies as st

from leveret import names
from leveret.ledger.event import AttemptEvent, JobEvent, Kind, Message, Standing
from leveret.ledger.letter import read_dead_letter
from leveret.ledger.record import read_records
from leveret.ledger.state import State
from leveret.ledger.tap import read_published

#: When stories begin: seconds since 1970.
EPOCH = 1_750_000_000

ENDS = ("succeeded", "retrying", "snoozed", "dead", "expired", "cancelled", "quarantined")


def tap(job_id: str, run: int = 0) -> JobEvent:
    """Tell that a job was published, or published again by a replay."""
    event = read_published(
        Message(
            names.LEDGER,
            names.JOBS,
            "default.work.do",
            pika.BasicProperties(message_id=job_id, type="work.do", timestamp=EPOCH),
            b'{"n": 1}',
            redelivered=False,
        )
    )
    assert event is not None
    return event._replace(standing=event.standing._replace(run=run))


def told(job_id: str, event: str, run: int, attempt: int, at: int) -> JobEvent:
    """Tell by a record what a worker did at a time; runs take a second."""
    record = {
        "event": event,
        "id": job_id,
        "actor": "work.do",
        "queue": "default",
        "run": run,
        "attempt": attempt,
    }
    worker = f"worker-{at % 2}"
    match event:
        case "started":
            record["started_at"] = EPOCH + at
        case "progress":
            record |= {"at": EPOCH + at, "progress": at / 100, "note": f"page {at}"}
        case "quarantined" | "expired" | "cancelled" | "snoozed":
            record["ended_at"] = EPOCH + at + 1
        case _:
            record |= {"started_at": EPOCH + at, "ended_at": EPOCH + at + 1}
    if event in ("retrying", "snoozed"):
        record["due_at"] = EPOCH + at + 30 + attempt
    if event in ("retrying", "dead"):
        record["error"] = {"type": "E", "message": f"at {at}", "traceback": f"{attempt}"}
    if event in ("dead", "expired"):
        record["reason"] = "expired" if event == "expired" else "exhausted"
    if event == "succeeded":
        record["result"] = {"at": at}
    body = json.dumps({"v": 1, "worker": worker, "records": [record]}).encode()
    (found,) = read_records(body)
    assert isinstance(found, JobEvent), found
    return found


def abandoned(job_id: str, run: int, attempt: int, at: int) -> JobEvent:
    """Tell that a run which started at a time is nobody's any more."""
    started_at = float(EPOCH + at)
    return JobEvent(
        job_id,
        "abandoned",
        Standing(run, 0, attempt, started_at, Kind.ABANDONED, State.QUEUED),
        attempt=AttemptEvent(
            run, attempt, started_at, Kind.ABANDONED, started_at, None, "abandoned"
        ),
    )


def dead_letter(job_id: str, run: int, attempt: int) -> JobEvent:
    """Tell by a dead letter that a job has died."""
    _, event = read_dead_letter(
        Message(
            names.dead_queue("default"),
            names.DEAD,
            "default",
            pika.BasicProperties(
                message_id=job_id,
                type="work.do",
                headers={
                    "x-leveret-reason": "exhausted",
                    "x-leveret-run": run,
                    "x-leveret-attempt": attempt,
                    "x-leveret-queue": "default",
                    "x-leveret-dead-at": "2026-01-31T12:00:00Z",
                },
            ),
            b"{}",
            redelivered=False,
        ),
        received_at=0.0,
    )
    assert event is not None
    return event


#: One event of a job: a function of its id.
_runs, _attempts, _times = st.integers(0, 2), st.integers(1, 3), st.integers(1, 6)
events = st.one_of(
    st.builds(lambda run: lambda i: tap(i, run), _runs),
    st.builds(
        lambda event, run, attempt, at: lambda i: told(i, event, run, attempt, at),
        st.sampled_from(("started", "progress", *ENDS)),
        _runs,
        _attempts,
        _times,
    ),
    st.builds(
        lambda run, attempt, at: lambda i: abandoned(i, run, attempt, at), _runs, _attempts, _times
    ),
    st.builds(lambda run, attempt: lambda i: dead_letter(i, run, attempt), _runs, _attempts),
)


@st.composite
def stories(draw: st.DrawFn) -> tuple[list, list[list]]:
    """Draw a job's events, and the same events as they may reach the ledger.

    Those are in any order, any of them told again, and cut into batches anywhere.
    """
    story = draw(st.lists(events, min_size=1, max_size=10))
    told_as = draw(st.permutations(story))
    told_as += draw(st.lists(st.sampled_from(story), max_size=4))
    cuts = sorted(draw(st.lists(st.integers(0, len(told_as)), max_size=4)))
    batches = [
        told_as[a:b] for a, b in zip([0, *cuts], [*cuts, len(told_as)], strict=True) if a < b
    ]
    return story, batches
