"""Folding events: which of them counts, whatever their order."""

from __future__ import annotations

import pytest
from hypothesis import given

from leveret.ledger.fold import fold
from tests.support.stories import EPOCH, abandoned, dead_letter, stories, tap, told

JOB = "01980000-0000-7000-8000-000000000001"


def folded(*events):
    """Fold events of one job."""
    changes = {}
    for event in events:
        fold(changes, event)
    return changes[JOB]


def state(*events):
    """Return the state in which events of one job leave it."""
    return str(folded(*events).standing.state)


def described(change):
    """Write down all that a change says."""
    return (
        change.standing,
        change.content,
        change.actor,
        change.queue,
        change.progress,
        change.attempts,
    )


@given(stories())
def test_any_order_and_repetition_of_events_folds_alike(drawn):
    """What a job's events say does not depend on the way in which they came."""
    story, batches = drawn
    straight = folded(*(event(JOB) for event in story))
    told_as = folded(*(event(JOB) for batch in batches for event in batch))
    straight.attempts = straight.attempts or None
    assert described(told_as) == described(straight)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([tap(JOB)], "queued"),
        ([told(JOB, "started", 0, 1, 1), tap(JOB)], "running"),
        ([told(JOB, "retrying", 0, 1, 1), told(JOB, "started", 0, 1, 1)], "retrying"),
        ([told(JOB, "started", 0, 2, 3), told(JOB, "retrying", 0, 1, 1)], "running"),
        ([told(JOB, "succeeded", 0, 1, 1), told(JOB, "started", 0, 2, 9)], "succeeded"),
        ([told(JOB, "succeeded", 0, 1, 1), told(JOB, "dead", 0, 3, 9)], "succeeded"),
        ([told(JOB, "dead", 0, 3, 1), tap(JOB, run=1)], "queued"),
        ([tap(JOB, run=1), told(JOB, "succeeded", 0, 1, 9)], "queued"),
        ([told(JOB, "snoozed", 0, 1, 1), tap(JOB)], "scheduled"),
        ([told(JOB, "quarantined", 0, 1, 3), told(JOB, "started", 0, 1, 1)], "queued"),
        ([dead_letter(JOB, 0, 1), told(JOB, "retrying", 0, 2, 4)], "dead"),
        ([told(JOB, "started", 0, 1, 1), abandoned(JOB, 0, 1, 1)], "queued"),
        ([abandoned(JOB, 0, 1, 1), told(JOB, "started", 0, 1, 1)], "queued"),
        ([abandoned(JOB, 0, 1, 1), told(JOB, "started", 0, 1, 2)], "running"),
        ([abandoned(JOB, 0, 1, 1), told(JOB, "retrying", 0, 1, 1)], "retrying"),
        ([abandoned(JOB, 0, 1, 1), told(JOB, "succeeded", 0, 1, 1)], "succeeded"),
        ([told(JOB, "progress", 0, 1, 1), tap(JOB)], "running"),
    ],
)
def test_the_newest_event_says_where_a_job_stands(events, expected):
    """Runs, ends, attempts, times and kinds are compared in this order."""
    assert state(*events) == expected
    assert state(*reversed(events)) == expected


def test_a_dead_letter_says_less_than_the_record_of_the_same_death():
    """The record knows when the run began, and which worker had it."""
    record = told(JOB, "dead", 0, 1, 5)
    for order in ([record, dead_letter(JOB, 0, 1)], [dead_letter(JOB, 0, 1), record]):
        assert folded(*order).standing == record.standing
    assert folded(dead_letter(JOB, 0, 1)).standing.reason == "exhausted"


def test_each_run_of_the_actor_is_an_attempt():
    """A run is known by the time of its start, and its end replaces its start."""
    change = folded(
        told(JOB, "started", 0, 1, 1),
        told(JOB, "retrying", 0, 1, 1),
        told(JOB, "started", 0, 2, 4),
        told(JOB, "started", 0, 2, 6),
    )
    outcomes = {key: attempt.outcome for key, attempt in change.attempts.items()}
    assert outcomes == {
        (0, 1, EPOCH + 1): "retrying",
        (0, 2, EPOCH + 4): "running",
        (0, 2, EPOCH + 6): "running",
    }


def test_the_latest_progress_counts():
    """Progress is that of its latest record, in whatever order they come."""
    change = folded(told(JOB, "progress", 0, 1, 5), told(JOB, "progress", 0, 1, 2))
    assert (change.progress.share, change.progress.note) == (0.05, "page 5")
