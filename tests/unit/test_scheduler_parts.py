"""The parts of the scheduler that need no database."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.jobstores.base import JobLookupError
from hypothesis import given
from hypothesis import strategies as st

from leveret.outbox.row import Entry
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.policy import Missed, Overlap
from leveret.schedules.trigger import Every
from leveret.store.lease import Grant, Held, Lease
from scheduler.bell import Bell
from scheduler.clock import DatabaseClock
from scheduler.fire import Decided, Plan
from scheduler.jobstore import ScheduleStore
from scheduler.leadership import Leadership
from scheduler.plan import REASON_INVALID, plan_of
from scheduler.queue import MOST_QUEUED, Ahead, judge

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TERM = timedelta(seconds=10)


class Seconds:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.value = 1000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.value


class Answers:
    """A database that takes its time, and then gives the next answer."""

    def __init__(self, clock, *answers, seconds=0.0):
        self.clock, self.answers, self.seconds = clock, list(answers), seconds
        self.statements = []

    def run(self, statement, values):
        """Answer."""
        self.statements.append((statement, values))
        self.clock.value += self.seconds
        return self.answers.pop(0)


# -------------------------------------------------------------------------------------- the lease


def test_a_term_is_counted_from_before_it_was_asked_for():
    """However long the answer took, the process stops before the database lets another in."""
    clock = Seconds()
    database = Answers(clock, [(7, "me", 10.0, NOW)], [(NOW,)], seconds=4.0)
    lease = Lease(database, "l", holder="me", term=TERM, clock=clock)
    assert lease.take() == Grant(7, 1000.0 + 9.0)
    assert lease.renew(7) == Grant(7, 1004.0 + 9.0)
    assert lease.renewal_seconds == pytest.approx(10 / 3)


def test_a_lease_of_another_says_how_long_it_lasts():
    """Also when its row has appeared just now, and nobody has read it."""
    clock = Seconds()
    database = Answers(clock, [(None, "other", 3.5, NOW)], [(None, None, None, NOW)])
    lease = Lease(database, "l", holder="me", term=TERM, clock=clock)
    assert lease.take() == Held("other", 3.5)
    assert lease.take() == Held("", 10.0)


def test_a_renewal_that_changes_no_row_is_none():
    """The lease has ended, or is another's."""
    lease = Lease(Answers(Seconds(), []), "l", holder="me", term=TERM, clock=Seconds())
    assert lease.renew(3) is None


def test_leadership_ends_at_its_deadline_or_when_it_is_lost():
    """And is never found again once the database has refused it."""
    clock = Seconds()
    leadership = Leadership(Grant(1, 1009.0), clock=clock)
    assert leadership.holds()
    clock.value = 1009.0
    assert not leadership.holds()
    leadership.extend(Grant(1, 1012.0))
    assert leadership.remaining == pytest.approx(3.0)
    leadership.lose()
    leadership.extend(Grant(1, 1020.0))
    assert not leadership.holds()
    assert leadership.remaining == 0


# -------------------------------------------------------------------------------------- the clock


def test_the_databases_time_is_not_known_before_it_was_asked():
    """There is nothing to fall back to: the process's wall clock is not asked."""
    with pytest.raises(LookupError, match="has not been asked"):
        DatabaseClock(Seconds()).now()


@given(
    st.lists(
        st.tuples(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 30)), min_size=1, max_size=40
    )
)
def test_the_estimate_is_never_ahead_and_behind_by_the_fastest_answer(answers):
    """Whatever the ways to the database and back take."""
    clock = Seconds()
    estimate = DatabaseClock(clock)
    truth = NOW.timestamp() - clock.value
    latest = []
    for there, back, pause in answers:
        asked = clock.value
        clock.value += there
        at = datetime.fromtimestamp(truth + clock.value, UTC)
        clock.value += back
        estimate.observe(at, asked)
        latest = [*latest, back][-16:]
        clock.value += pause
        behind = truth + clock.value - estimate.now().timestamp()
        assert -1e-3 <= behind <= min(latest) + 1e-4


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_one_answer_after_a_jump_of_a_clock_is_enough(jump):
    """Of the process's, as here, or of the database's: only their difference is known."""
    clock = Seconds()
    estimate = DatabaseClock(clock)
    for _ in range(20):
        estimate.observe(NOW, clock.value)
    clock.value += jump
    assert estimate.now() == NOW + timedelta(seconds=jump)
    estimate.observe(NOW + SECOND, clock.value)
    assert estimate.now() == NOW + SECOND


def test_datetime_now_of_the_databases_zone_is_its_time():
    """And moments of the zone compare and subtract like any others."""
    clock = Seconds()
    estimate = DatabaseClock(clock)
    estimate.observe(NOW, clock.value)
    present = datetime.now(estimate.zone)
    assert present == NOW
    assert present.utcoffset() == timedelta(0)
    later = estimate.zone.at(NOW + SECOND)
    assert later > present
    assert later.timestamp() - present.timestamp() == 1
    assert later.astimezone(estimate.zone) is later
    assert later.astimezone(UTC) == NOW + SECOND


def test_a_bell_ends_the_wait_that_is_or_the_next():
    """And a wait is never longer than a second."""
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(60)
    assert not bell.wait(0)
    threading.Timer(0.05, bell.ring).start()
    assert bell.wait(60)
    began = time.monotonic()
    assert not bell.wait(3600)
    assert time.monotonic() - began < 30
    other, end = os.pipe()
    os.write(end, b"\0")
    assert bell.wait(60, other)
    os.close(other)
    os.close(end)


# --------------------------------------------------------------------------------- the job store


@pytest.fixture
def clock():
    """Return a database's clock that stands at noon."""
    made = DatabaseClock(Seconds())
    made.observe(NOW, made.elapsed())
    return made


@pytest.fixture
def rung():
    """Return a list that grows when something is due earlier than was said."""
    return []


@pytest.fixture
def store(clock, rung):
    """Return a job store that APScheduler has started."""
    from apscheduler.schedulers.background import BackgroundScheduler  # noqa: PLC0415

    made = ScheduleStore(clock, earlier=lambda: rung.append(True))
    made.start(BackgroundScheduler(timezone=clock.zone), "default")
    return made


def due(store, now) -> list[str]:
    """Return the names of what is due."""
    return [job.id for job in store.get_due_jobs(now)]


def test_what_is_due_comes_in_order_and_once(store):
    """Until it is set again, or nothing has been heard of it for seconds."""
    store.replace({"c": NOW - SECOND, "a": NOW, "b": NOW + SECOND, "d": NOW - 2 * SECOND})
    assert due(store, NOW) == ["d", "c", "a"]
    assert due(store, NOW) == []
    store.set("c", NOW + SECOND)
    assert due(store, NOW + SECOND) == ["b", "c"]
    assert due(store, NOW + 60 * SECOND) == ["d", "a", "b", "c"]


def test_what_is_set_counts_whatever_was_known(store):
    """Earlier or later; and what is not due any more is gone."""
    store.replace({"a": NOW + 5 * SECOND, "b": NOW + 5 * SECOND, "c": NOW})
    store.set("a", NOW)
    store.set("c", NOW + 9 * SECOND)
    store.set("b", None)
    assert due(store, NOW + 5 * SECOND) == ["a"]
    assert len(store) == 2


def test_a_sweep_brings_what_is_new_or_earlier_and_nothing_that_is_under_way(store):
    """What has been handed out is told by whom has it."""
    store.replace({"a": NOW, "b": NOW + 5 * SECOND, "c": NOW + SECOND})
    assert due(store, NOW) == ["a"]
    store.merge({"a": NOW, "b": NOW, "c": NOW + 3 * SECOND, "new": NOW})
    assert due(store, NOW) == ["b", "new"]
    assert due(store, NOW + SECOND) == ["c"]


def test_what_was_handed_out_by_a_clock_that_was_ahead_is_found_again(store):
    """Nobody has told what became of it, and by the clock as it is that would take an hour."""
    store.replace({"a": NOW})
    assert due(store, NOW + timedelta(hours=1)) == ["a"]
    store.merge({"a": NOW})
    assert due(store, NOW) == ["a"]


def test_no_wait_is_longer_than_a_second(store, clock, rung):
    """And what becomes due before its end, ends it."""
    assert store.get_next_run_time() == NOW + SECOND
    store.replace({"a": NOW + timedelta(milliseconds=300), "b": NOW + timedelta(hours=1)})
    assert rung
    assert store.get_next_run_time() == NOW + timedelta(milliseconds=300)
    assert store.get_next_run_time().tzinfo is clock.zone
    rung.clear()
    store.set("c", NOW + timedelta(milliseconds=400))
    assert not rung
    store.set("c", NOW + timedelta(milliseconds=200))
    assert rung


def test_the_heap_does_not_grow_with_what_was_set(store):
    """A schedule that fires for months is one item."""
    store.replace({"a": NOW, "b": NOW})
    for number in range(5000):
        store.set("a", NOW + number * SECOND)
    assert len(store._heap) < 100
    assert due(store, NOW + 9999 * SECOND) == ["b", "a"]


def test_apscheduler_may_look_and_remove_but_not_add(store):
    """Removing forgets; the table is not touched."""
    store.replace({"b": NOW + SECOND, "a": NOW})
    assert [job.id for job in store.get_all_jobs()] == ["a", "b"]
    job = store.lookup_job("a")
    assert job.coalesce
    assert job._get_run_times(NOW) == [NOW]
    with pytest.raises(NotImplementedError, match="schedules are made with"):
        store.add_job(job)
    store.update_job(job)
    store.remove_job("a")
    assert store.lookup_job("a") is None
    with pytest.raises(JobLookupError):
        store.remove_job("a")
    store.remove_all_jobs()
    assert len(store) == 0


# -------------------------------------------------------------------------------------- the plan


def row(definition, **values):
    """Return what the plan looks at in a row."""
    return {
        "name": definition.name,
        "version": 3,
        "since": NOW - 60 * SECOND,
        "last_slot": NOW - SECOND,
        **values,
    }


def plan(definition, now=NOW, **values) -> Plan:
    """Decide on a schedule."""
    return plan_of(
        row(definition, **values), definition, now=now, grace=5 * SECOND, max_body_bytes=1000
    )


def test_a_plan_fires_what_is_due_and_moves_on():
    """With the job of that slot, which carries both."""
    found = plan(Definition(name="s", actor="a.b", trigger=Every(SECOND), arguments={"n": 1}))
    ((decided),) = found.slots
    assert (decided.slot, decided.outcome, decided.due_at) == (NOW, "fired", NOW)
    assert decided.job.job_id == job_id("s", NOW)
    assert decided.job.body == b'{"n":1}'
    assert '"schedule": "s"' in decided.job.options
    assert '"app_id": "leveret-scheduler"' in decided.job.options
    assert (found.new_last_slot, found.next_due_at) == (NOW, NOW + SECOND)
    assert found.due_at == NOW


def test_a_plan_of_what_is_not_due_changes_nothing():
    """Neither the last slot nor the next."""
    found = plan(Definition(name="s", actor="a.b", trigger=Every(SECOND)), last_slot=NOW)
    assert found.slots == ()
    assert found.new_last_slot == NOW
    assert found.next_due_at == NOW + SECOND
    assert found.due_at is None


def test_a_plan_records_missed_slots_as_one_run():
    """A minute without a leader, and the latest is fired."""
    schedule = Definition(name="s", actor="a.b", trigger=Every(SECOND), missed=Missed.ONCE)
    found = plan(schedule, last_slot=None)
    skipped, fired = found.slots
    assert (skipped.slot, skipped.until, skipped.count) == (NOW - 59 * SECOND, NOW - SECOND, 59)
    assert (skipped.outcome, skipped.reason, skipped.job) == ("skipped", "missed", None)
    assert (fired.slot, fired.outcome) == (NOW, "fired")


def test_a_slot_whose_job_breaks_the_contract_is_recorded_and_not_published():
    """It neither vanishes nor keeps those after it from their turn."""
    schedule = Definition(name="s", actor="a.b", trigger=Every(SECOND), arguments={"t": "x" * 2000})
    ((decided),) = plan(schedule).slots
    assert (decided.outcome, decided.reason, decided.job) == ("skipped", REASON_INVALID, None)


# ------------------------------------------------------------------------------------- overlap


def slots(count) -> list[Decided]:
    """Return slots that are to be fired."""
    job = Entry(
        job_id="j", actor="a.b", queue=None, body=b"{}", options=None, due_at=None, hold_until=None
    )
    return [
        Decided(slot=NOW + n * SECOND, outcome="fired", due_at=NOW, job=job) for n in range(count)
    ]


@pytest.mark.parametrize(
    ("overlap", "before", "outcomes"),
    [
        (Overlap.ALLOW, Ahead(True, 0), ["fired", "fired"]),
        (Overlap.SKIP, Ahead(False, 0), ["fired", "skipped"]),
        (Overlap.SKIP, Ahead(True, 0), ["skipped", "skipped"]),
        (Overlap.QUEUE, Ahead(False, 0), ["fired", "queued"]),
        (Overlap.QUEUE, Ahead(True, 0), ["queued", "queued"]),
        (Overlap.QUEUE, Ahead(False, 1), ["queued", "queued"]),
        (Overlap.QUEUE, Ahead(True, MOST_QUEUED - 1), ["queued", "skipped"]),
    ],
)
def test_overlap_is_judged_in_order(overlap, before, outcomes):
    """A slot that is fired is what the next one finds before it."""
    judged = judge(slots(2), overlap, before)
    assert [decided.outcome for decided in judged] == outcomes
    assert all((decided.job is None) == (decided.outcome != "fired") for decided in judged)


def test_a_slot_that_is_skipped_by_its_overlap_says_why():
    """The job before it lives, or too many wait."""
    assert judge(slots(1), Overlap.SKIP, Ahead(True, 0))[0].reason == "overlap"
    full = judge(slots(1), Overlap.QUEUE, Ahead(True, MOST_QUEUED))
    assert full[0].reason == "queue-full"
