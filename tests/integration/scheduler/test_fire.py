"""The fire's statement, and what stands before a slot, on a real database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from leveret.ledger.state import State
from leveret.schedules.definition import job_id
from leveret.schedules.row import definition_of
from leveret.store.lease import Lease
from scheduler import queue
from scheduler.fire import Verdict, fire
from scheduler.plan import plan_of
from scheduler.queue import Ahead
from tests.support.schedulers import create, every

TERM = timedelta(seconds=60)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


class Desk:
    """A leader's way to one schedule."""

    def __init__(self, runner, url, name, **fields):
        self.runner, self.name = runner, name
        self.lease = Lease(runner, f"lease of {name}", holder="me", term=TERM)
        self.epoch = self.lease.take().epoch
        create(url, [every(name, 3600, **fields)])
        # A slot has just come, and those before it were decided on.
        ((self.slot,),) = runner.run("SELECT date_trunc('hour', clock_timestamp())")
        self.set(since=self.slot - 9 * HOUR, last_slot=self.slot - HOUR, next_due_at=self.slot)

    def set(self, **values):
        """Set columns of its row."""
        for column, value in values.items():
            self.runner.run(
                f"UPDATE schedules SET {column} = %s WHERE name = %s",
                [value, self.name],
            )

    def row(self):
        """Read its row."""
        with psycopg.Cursor(self.runner.connection, row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute("SELECT * FROM schedules WHERE name = %s", [self.name]).fetchone()

    def plan(self, **changes):
        """Decide on it as a leader does."""
        row = self.row()
        made = plan_of(
            row,
            definition_of(row),
            now=self.slot + timedelta(minutes=1),
            grace=HOUR,
            max_body_bytes=10_000,
        )
        return replace(made, **changes)

    def fire(self, *plans):
        """Fire; return the verdicts in order."""
        fired = fire(self.runner, self.lease.fence(self.epoch), plans)
        return [fired.verdicts[plan.name] for plan in plans]

    def slots(self):
        """Read its slots."""
        return self.runner.run(
            "SELECT slot, outcome, reason, job_id, epoch FROM schedule_slots"
            " WHERE schedule = %s ORDER BY slot",
            [self.name],
        )

    def jobs(self):
        """Read its jobs in the outbox."""
        return self.runner.run(
            "SELECT job_id, actor, queue, body, options FROM leveret_outbox"
            " WHERE options->>'schedule' = %s ORDER BY id",
            [self.name],
        )

    def expect_nothing(self):
        """Check that nothing was done."""
        assert self.slots() == []
        assert self.jobs() == []


@pytest.fixture
def desk(runner, ledger_database, new_name):
    """Return a function that makes a schedule with a slot that is due."""
    return lambda **fields: Desk(runner, ledger_database, new_name(), **fields)


def test_a_fire_is_a_slot_and_a_job_and_the_next_time(desk):
    """Under ids that anybody can derive."""
    mine = desk(arguments={"n": 1}, queue="bulk", options={"priority": 3})
    assert mine.fire(mine.plan()) == [Verdict.DONE]
    expected = job_id(mine.name, mine.slot)
    assert mine.slots() == [(mine.slot, "fired", None, expected, 1)]
    ((job, actor, pool, body, options),) = mine.jobs()
    assert (job, actor, pool, body) == (expected, "tick.tock", "bulk", b'{"n":1}')
    assert options["priority"] == 3
    assert options["app_id"] == "leveret-scheduler"
    assert datetime.fromisoformat(options["slot"]) == mine.slot
    row = mine.row()
    assert (row["last_slot"], row["next_due_at"]) == (mine.slot, mine.slot + HOUR)


def test_the_same_fire_again_is_refused(desk):
    """Its answer was lost, and it has been carried out."""
    mine = desk()
    plan = mine.plan()
    assert mine.fire(plan) == [Verdict.DONE]
    assert mine.fire(plan) == [Verdict.CHANGED]
    assert len(mine.slots()) == len(mine.jobs()) == 1


def test_a_slot_that_has_its_job_has_no_other(desk):
    """Somebody ran it by hand; the schedule goes on."""
    mine = desk()
    mine.runner.run(
        "INSERT INTO schedule_slots (schedule, slot, due_at, cause) VALUES (%s, %s, %s, 'run')",
        [mine.name, mine.slot, mine.slot],
    )
    assert mine.fire(mine.plan()) == [Verdict.DONE]
    assert len(mine.slots()) == 1
    assert mine.jobs() == []
    assert mine.row()["last_slot"] == mine.slot


@pytest.mark.parametrize("how", ["expired", "taken", "never"])
def test_without_the_lease_nothing_is_fired(desk, how):
    """An epoch that is over, one that is another's, and one that never was."""
    mine = desk()
    if how == "expired":
        mine.runner.run(
            "UPDATE leases SET expires_at = clock_timestamp() WHERE name = %s", [mine.lease.name]
        )
    elif how == "taken":
        mine.lease.take()
    else:
        mine.epoch = 99
    assert mine.fire(mine.plan()) == [Verdict.STALE]
    mine.expect_nothing()
    assert mine.row()["last_slot"] == mine.slot - HOUR


def test_what_is_not_due_by_the_databases_clock_is_refused(desk):
    """Whatever the process believes."""
    mine = desk()
    early = mine.slot + 5 * HOUR
    (decided,) = mine.plan().slots
    plan = mine.plan(slots=(replace(decided, slot=early, due_at=early),))
    assert mine.fire(plan) == [Verdict.EARLY]
    mine.expect_nothing()


@pytest.mark.parametrize(
    "change",
    [
        {"paused_at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"version": 9},
        {"since": datetime(2026, 1, 1, tzinfo=UTC)},
        {"last_slot": None},
    ],
)
def test_a_schedule_that_was_changed_meanwhile_is_refused(desk, change):
    """It is read again, and decided on anew."""
    mine, other = desk(), desk()
    plan = mine.plan()
    mine.set(**change)
    assert mine.fire(plan, other.plan()) == [Verdict.CHANGED, Verdict.DONE]
    mine.expect_nothing()
    assert len(other.jobs()) == 1


def test_a_schedule_that_was_removed_meanwhile_is_refused(desk):
    """Nothing is left of it to fire."""
    mine = desk()
    plan = mine.plan()
    mine.runner.run("DELETE FROM schedules WHERE name = %s", [mine.name])
    assert mine.fire(plan) == [Verdict.CHANGED]
    mine.expect_nothing()


def test_who_holds_one_schedule_locked_does_not_hold_up_the_others(desk, ledger_database):
    """It is tried again when they are done."""
    mine, other = desk(), desk()
    with psycopg.connect(ledger_database) as connection:
        connection.execute("SELECT FROM schedules WHERE name = %s FOR UPDATE", [mine.name])
        assert mine.fire(mine.plan(), other.plan()) == [Verdict.BUSY, Verdict.DONE]
    mine.expect_nothing()
    assert mine.fire(mine.plan()) == [Verdict.DONE]


def test_a_run_of_skipped_slots_is_one_row(desk):
    """With its first and last, their number and the reason."""
    mine = desk()
    mine.set(last_slot=mine.slot - 8 * HOUR)
    row = mine.row()
    plan = plan_of(
        row,
        definition_of(row),
        now=mine.slot + timedelta(minutes=1),
        grace=SECOND,
        max_body_bytes=10_000,
    )
    assert mine.fire(plan) == [Verdict.DONE]
    skipped, fired = mine.slots()
    assert skipped[:3] == (mine.slot - 7 * HOUR, "skipped", "missed")
    assert fired[:2] == (mine.slot, "fired")
    assert mine.runner.run(
        "SELECT until, count FROM schedule_slots WHERE schedule = %s AND outcome = 'skipped'",
        [mine.name],
    ) == [(mine.slot - HOUR, 7)]


# ------------------------------------------------------------------------------------- overlap


def test_a_job_lives_until_the_ledger_says_that_it_has_ended(desk):
    """One that the ledger has not heard of lives for a day, and longer in the outbox."""
    mine = desk()

    def ahead():
        return queue.ahead(mine.runner, [mine.name])[mine.name]

    assert ahead() == Ahead(lives=False, queued=0)
    mine.fire(mine.plan())
    assert ahead() == Ahead(lives=True, queued=0)
    mine.runner.run(
        "UPDATE schedule_slots SET fired_at = now() - interval '25 hours' WHERE schedule = %s",
        [mine.name],
    )
    assert ahead().lives
    mine.runner.run("DELETE FROM leveret_outbox WHERE job_id = %s", [job_id(mine.name, mine.slot)])
    assert not ahead().lives
    mine.runner.run(
        "INSERT INTO jobs (id, created_at, state) VALUES (%s, %s, %s)",
        [job_id(mine.name, mine.slot), mine.slot, str(State.RUNNING)],
    )
    assert ahead().lives
    mine.runner.run(
        "UPDATE jobs SET state = 'succeeded' WHERE id = %s", [job_id(mine.name, mine.slot)]
    )
    assert not ahead().lives


def test_a_waiting_slot_is_fired_once_and_only_under_the_lease(desk):
    """And not while its schedule is paused."""
    mine = desk()
    plan = mine.plan()
    (decided,) = plan.slots
    waits = replace(decided, outcome="queued", job=None)
    assert mine.fire(replace(plan, slots=(waits,))) == [Verdict.DONE]
    assert mine.jobs() == []
    assert queue.waiting(mine.runner)[mine.name] == mine.slot
    assert queue.ahead(mine.runner, [mine.name])[mine.name].queued == 1
    jobs = {(mine.name, mine.slot): decided.job}
    fence = mine.lease.fence(mine.epoch)
    assert queue.fire_queued(mine.runner, mine.lease.fence(99), jobs) == []
    mine.set(paused_at=mine.slot)
    assert queue.fire_queued(mine.runner, fence, jobs) == []
    mine.set(paused_at=None)
    assert queue.fire_queued(mine.runner, fence, jobs) == [mine.name]
    assert queue.fire_queued(mine.runner, fence, jobs) == []
    assert [job for job, *_ in mine.jobs()] == [job_id(mine.name, mine.slot)]
    assert mine.name not in queue.waiting(mine.runner)


def test_the_waiting_slots_of_a_removed_schedule_are_skipped(desk):
    """What they would have been is gone."""
    mine = desk()
    plan = mine.plan()
    waits = replace(plan.slots[0], outcome="queued", job=None)
    mine.fire(replace(plan, slots=(waits,)))
    mine.runner.run("DELETE FROM schedules WHERE name = %s", [mine.name])
    queue.forget_removed(mine.runner, mine.lease.fence(99))
    assert mine.slots()[0][1] == "queued"
    queue.forget_removed(mine.runner, mine.lease.fence(mine.epoch))
    assert mine.slots()[0][1:3] == ("skipped", "removed")
