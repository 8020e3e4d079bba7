"""Comparing the ledger with the broker's counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from leveret.audit.verdict import WHEEL, Kind, LiveJob, Snapshot, Subject, judge
from leveret.ledger import LIVE, State

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def job(name, state=State.QUEUED, **fields):
    """Make a job that is live in the ledger."""
    given = {"actor": "a.b", "queue": "default", "due_at": None, "since": NOW} | fields
    return LiveJob(id=name, state=state, **given)


def snapshot(live=(), *, states=None, **fields):
    """Make a look at both sides."""
    counted = dict.fromkeys(State, 0) | (states or {})
    for each in live:
        counted[each.state] += 1
    given = {
        "taken_at": NOW,
        "states": counted,
        "live": live,
        "outbox": frozenset(),
        "outbox_unknown": frozenset(),
        "queues": {"default": 0, "bulk": 0},
        "wheel": 0,
        "unread": 0,
        "workers": frozenset({"w"}),
        "letters": {},
    }
    return Snapshot(**given | fields)


def lost(report):
    """Return the ids of the jobs that are missing."""
    return [finding.subject for finding in report.findings if finding.kind is Kind.LOST]


def test_nothing_is_wrong_with_nothing():
    """An empty system adds up."""
    assert judge(snapshot()).holds


def test_jobs_that_are_where_they_belong_are_accounted_for():
    """In their queue, in the wheel, in the outbox."""
    later = NOW + timedelta(hours=1)
    report = judge(
        snapshot(
            [
                job("waits"),
                job("later", State.SCHEDULED, due_at=later),
                job("again", State.RETRYING, due_at=later),
                job("leaving"),
            ],
            states={State.SUCCEEDED: 5, State.DEAD: 1},
            queues={"default": 1},
            wheel=2,
            outbox=frozenset({"leaving", "new"}),
            outbox_unknown=frozenset({"new"}),
        )
    )
    assert report.holds
    assert report.published == 11
    assert report.live == 5


def test_an_empty_queue_names_all_of_its_jobs():
    """The other queue's are not suspected."""
    report = judge(snapshot([job("1"), job("2"), job("3", queue="bulk")], queues={"bulk": 1}))
    assert lost(report) == ["1", "2"]
    assert not report.holds


def test_a_queue_with_too_few_messages_names_the_jobs_that_wait_longest():
    """A queue is first in, first out: what left without a trace stood in front."""
    live = [job(str(n), since=NOW - timedelta(minutes=n)) for n in range(5)]
    assert lost(judge(snapshot(live, queues={"default": 3}))) == ["4", "3"]


def test_a_job_of_an_unknown_queue_is_looked_for_by_its_actor():
    """A key any.<actor> says no queue; the declaration of the actor does."""
    known = judge(snapshot([job("1", queue=None)], queues={"bulk": 1}, actors={"a.b": "bulk"}))
    assert known.holds
    somewhere = judge(snapshot([job("1", queue=None)], queues={"bulk": 1}))
    assert somewhere.holds


def test_a_due_job_may_still_be_in_the_wheel_or_already_in_its_queue():
    """Clocks differ; the sum decides."""
    due = NOW - timedelta(milliseconds=50)
    assert judge(snapshot([job("1", State.SCHEDULED, due_at=due)], wheel=1)).holds
    soon = NOW + timedelta(milliseconds=50)
    assert judge(snapshot([job("1", State.SCHEDULED, due_at=soon)], queues={"default": 1})).holds


def test_jobs_missing_from_the_wheel_are_named():
    """They would never come back."""
    later = NOW + timedelta(hours=1)
    live = [job("1", State.SCHEDULED, due_at=later), job("2", State.RETRYING, due_at=later)]
    report = judge(snapshot(live))
    assert sorted(lost(report)) == ["1", "2"]
    assert report.places[WHEEL] == (2, 0)


def test_a_running_job_of_a_worker_that_is_gone_is_named():
    """Its message is back in the queue."""
    live = [job("1", State.RUNNING, worker="w"), job("2", State.RUNNING, worker="gone")]
    report = judge(snapshot(live, queues={"default": 2}))
    assert [(f.kind, f.subject) for f in report.findings] == [(Kind.NOT_RUNNING, "2")]


def test_more_messages_than_jobs_are_no_loss():
    """Copies, and jobs without an id."""
    report = judge(snapshot([job("1")], queues={"default": 4}))
    assert report.holds
    assert report.surplus == 3


def test_nothing_holds_before_the_recorder_has_read_everything():
    """The numbers are not final."""
    report = judge(snapshot(unread=3))
    assert not report.holds
    assert not report.is_settled


def test_what_the_rows_say_is_named_with_its_remedy():
    """Found by looking at the tables alone."""
    found = {Kind.NO_DEAD_LETTER: [Subject(id="1", detail="dead of exhausted")]}
    (finding,) = judge(snapshot(found=found)).findings
    assert finding.subject == "1"
    assert "dead letter" in finding.remedy


@given(
    known=st.dictionaries(st.sampled_from(["default", "bulk"]), st.integers(0, 6)),
    there=st.dictionaries(st.sampled_from(["default", "bulk"]), st.integers(0, 6)),
    ended=st.integers(0, 100),
)
def test_the_sum_always_adds_up_and_no_more_is_lost_than_is_missing(known, there, ended):
    """Published = succeeded + dead + cancelled + expired + live, whatever is where."""
    live = [job(f"{queue}{n}", queue=queue) for queue, count in known.items() for n in range(count)]
    report = judge(snapshot(live, states={State.SUCCEEDED: ended}, queues=there))
    ends = sum(count for state, count in report.states.items() if state not in LIVE)
    assert report.published == ends + report.live
    missing = sum(max(0, count - there.get(queue, 0)) for queue, count in known.items())
    assert len(lost(report)) == missing
    assert len(set(lost(report))) == len(lost(report))
