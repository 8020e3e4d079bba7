"""What is missing among the slots of schedules: found, named, and made good."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from leveret.message import new_id
from leveret.schedules import gaps, repair, store
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.trigger import Cron, Every
from leveret.store import engine, migrate, partition
from tests.support.databases import temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)

_SLOT = text(
    "INSERT INTO schedule_slots (schedule, slot, until, count, outcome, job_id, due_at, fired_at)"
    " VALUES (:schedule, :slot, :until, NULL, :outcome, :job_id, :slot, :fired_at)"
)
_STEADY = text(
    "INSERT INTO schedule_slots (schedule, slot, due_at, fired_at) SELECT :schedule, at, at, at"
    " FROM generate_series(CAST(:first AS timestamptz), :last, :step) AS at"
)
_AGE = text("UPDATE schedules SET since = :since, last_slot = :last_slot WHERE name = :schedule")


@pytest.fixture(scope="module")
def ledger(checkout) -> Iterator[Engine]:
    """Return an engine of a database in which there are no schedules."""
    with temporary_database(checkout, "gaps") as url:
        made = engine(url)
        try:
            migrate.upgrade(made)
            with made.begin() as connection:
                partition.ensure(connection)
            yield made
        finally:
            made.dispose()


@pytest.fixture
def connection(ledger) -> Iterator[Connection]:
    """Return a connection whose transaction is rolled back when the test ends."""
    with ledger.connect() as found:
        yield found
        found.rollback()


@pytest.fixture
def now(connection) -> datetime:
    """Return the minute that it is, by the database's clock."""
    return store.database_time(connection).replace(second=0, microsecond=0)


def make(
    connection: Connection,
    name: str,
    *,
    trigger: object = Every(MINUTE),
    since: datetime,
    last_slot: datetime | None,
    **fields: object,
) -> Definition:
    """Make a schedule that has been there for a while."""
    definition = Definition(name=name, actor="order.note", trigger=trigger, **fields)
    store.create(connection, definition, by="test")
    age = {"schedule": name, "since": since, "last_slot": last_slot}
    connection.execute(_AGE, age)
    return definition


def steady(
    connection: Connection, name: str, first: datetime, last: datetime, step: timedelta = MINUTE
) -> None:
    """Write the rows of slots that were fired as they should."""
    values = {"schedule": name, "first": first, "last": last, "step": step}
    connection.execute(_STEADY, values)


def slot(connection: Connection, name: str, at: datetime, **fields: object) -> None:
    """Write the row of one slot."""
    given = {"until": None, "outcome": "fired", "job_id": None, "fired_at": at}
    connection.execute(_SLOT, given | {"schedule": name, "slot": at} | fields)


def forget(connection: Connection, name: str, first: datetime, last: datetime) -> None:
    """Remove rows."""
    connection.execute(
        text("DELETE FROM schedule_slots WHERE schedule = :s AND slot BETWEEN :a AND :b"),
        {"s": name, "a": first, "b": last},
    )


def test_no_schedules_have_no_gaps(connection):
    """There is nothing to miss."""
    found = gaps.find(connection)
    assert found.is_empty
    assert (found.schedules, found.slots, found.leader) == (0, 0, None)


def test_a_slot_that_was_passed_over_is_named(connection, now):
    """One without a row among those that have one, and none besides."""
    make(connection, "each", since=now - 3 * HOUR, last_slot=now)
    steady(connection, "each", now - 3 * HOUR + MINUTE, now)
    assert gaps.find(connection).is_empty
    missing = now - HOUR
    forget(connection, "each", missing, missing + MINUTE)
    found = gaps.find(connection)
    assert found.gaps == (
        gaps.Gap(schedule="each", slot=missing),
        gaps.Gap(schedule="each", slot=missing + MINUTE),
    )
    assert not found.overdue
    assert (found.schedules, found.shortened) == (1, {})


def test_what_was_skipped_is_no_gap(connection, now):
    """A run of slots accounts for all in it, whenever it begins, and for no other."""
    make(connection, "runs", since=now - 3 * HOUR, last_slot=now)
    slot(connection, "runs", now - 3 * HOUR, until=now - 2 * HOUR, outcome="skipped")
    slot(connection, "runs", now - 2.5 * HOUR, job_id=None)
    slot(connection, "runs", now - HOUR, until=now, outcome="skipped")
    found = gaps.find(connection)
    assert [gap.slot for gap in found.gaps] == [now - 2 * HOUR + n * MINUTE for n in range(1, 60)]
    assert gaps.find(connection, until=now - 2 * HOUR).is_empty
    assert gaps.find(connection, since=now - HOUR).is_empty
    assert gaps.find(connection, schedule="another").is_empty


def test_slots_that_no_scheduler_has_decided_on_are_overdue(connection, now):
    """Nobody leads: they are not lost, but late."""
    make(connection, "late", since=now - 3 * HOUR, last_slot=now - HOUR)
    make(connection, "new", since=now - 10 * MINUTE, last_slot=None)
    steady(connection, "late", now - 3 * HOUR + MINUTE, now - HOUR)
    found = gaps.find(connection, grace=2 * MINUTE)
    assert not found.gaps
    late, new = found.overdue
    assert (late.schedule, late.slot) == ("late", now - 59 * MINUTE)
    assert late.count in {58, 59}  # a minute may have passed
    assert (new.schedule, new.slot, new.count in {8, 9}) == ("new", now - 9 * MINUTE, True)


def test_a_paused_schedule_has_no_gaps_while_it_is_paused(connection, now):
    """Neither that, nor is it overdue; what it missed before is still named."""
    make(connection, "rests", since=now - 3 * HOUR, last_slot=now - HOUR)
    steady(connection, "rests", now - 3 * HOUR + MINUTE, now - HOUR)
    store.pause(connection, "rests", by="test")
    connection.execute(text("UPDATE schedules SET paused_at = :at"), {"at": now - HOUR})
    assert gaps.find(connection).is_empty
    forget(connection, "rests", now - 2 * HOUR, now - 2 * HOUR)
    assert [gap.slot for gap in gaps.find(connection).gaps] == [now - 2 * HOUR]
    store.resume(connection, "rests", by="test")
    assert gaps.find(connection).is_empty


def test_nothing_is_looked_for_before_what_is_kept(connection, now):
    """Retention has removed the rows of the slots before, or the schedule was another."""
    make(connection, "kept", trigger=Every(HOUR), since=now - timedelta(days=9), last_slot=now)
    steady(connection, "kept", now.replace(minute=0) - timedelta(days=3), now, HOUR)
    long_ago = now - timedelta(days=9)
    assert gaps.find(connection).is_empty
    assert gaps.find(connection, since=long_ago, keep=timedelta(days=3)).is_empty
    assert len(gaps.find(connection, since=long_ago, keep=timedelta(days=4)).gaps) in {22, 23, 24}
    connection.execute(text("UPDATE schedules SET since = :at"), {"at": now - timedelta(days=3)})
    assert gaps.find(connection, since=long_ago).is_empty


def test_of_a_dense_schedule_the_end_of_the_period_is_looked_at(connection, now):
    """So many slots and no more, and it is said from when on."""
    make(connection, "dense", trigger=Every(SECOND), since=now - 20 * HOUR, last_slot=now)
    steady(connection, "dense", now - 20 * HOUR + SECOND, now, SECOND)
    forget(connection, "dense", now - 10 * HOUR, now - 10 * HOUR)
    forget(connection, "dense", now - HOUR, now - HOUR)
    began = time.perf_counter()
    found = gaps.find(connection)
    print(f"{found.slots:,} slots of 72,000 in {time.perf_counter() - began:.3f} s")
    assert [gap.slot for gap in found.gaps] == [now - HOUR]
    assert 5_000 <= found.slots <= gaps.MOST_SLOTS
    assert found.shortened["dense"] > now - 3 * HOUR
    began = time.perf_counter()
    found = gaps.find(connection, most=100_000)
    print(f"{found.slots:,} slots of 72,000 in {time.perf_counter() - began:.3f} s")
    assert [gap.slot for gap in found.gaps] == [now - 10 * HOUR, now - HOUR]
    assert not found.shortened


def test_many_schedules_cost_a_few_round_trips(connection, now):
    """Two thousand, each with a few slots, and one that has lost one."""
    connection.execute(
        text(
            "INSERT INTO schedules (name, origin, actor, body, trigger, expression, since,"
            " last_slot, created_by) SELECT 'n' || n, 'api', 'a.b', '{}', 'cron', '15 */4 * * *',"
            " CAST(:since AS timestamptz), :now, 'test' FROM generate_series(1, 2000) n"
        ),
        {"since": now - 24 * HOUR, "now": now},
    )
    expected = list(takewhile(lambda at: at <= now, Cron("15 */4 * * *").slots(now - 24 * HOUR)))
    connection.execute(
        text(
            "INSERT INTO schedule_slots (schedule, slot, due_at) SELECT 'n' || n, at, at"
            " FROM generate_series(1, 2000) n, unnest(CAST(:slots AS timestamptz[])) AS at"
        ),
        {"slots": expected},
    )
    lost = expected[2]
    forget(connection, "n77", lost, lost)
    began = time.perf_counter()
    found = gaps.find(connection)
    print(f"{found.schedules:,} schedules in {time.perf_counter() - began:.3f} s")
    assert found.gaps == (gaps.Gap(schedule="n77", slot=lost),)
    assert found.schedules == 2000


def test_a_schedule_that_cannot_be_read_is_said_to_be(connection, now):
    """Its slots cannot be told, and the others' can."""
    make(connection, "good", since=now - HOUR, last_slot=now)
    make(connection, "odd", trigger=Cron("* * * * *"), since=now - HOUR, last_slot=now)
    steady(connection, "good", now - HOUR, now)
    connection.execute(text("UPDATE schedules SET timezone = 'Mars/Base' WHERE name = 'odd'"))
    found = gaps.find(connection)
    (odd,) = found.unreadable
    assert odd.schedule == "odd"
    assert "Mars/Base" in odd.detail
    assert (found.gaps, found.overdue) == ((), ())


def test_a_fired_slot_whose_job_nobody_knows_is_named(connection, now):
    """Neither the outbox nor the ledger has it, wherever the ledger would have filed it."""
    names = {name: now - n * MINUTE for n, name in enumerate(("sent", "known", "refiled", "lost"))}
    ids = {name: job_id("fires", at) for name, at in names.items()}
    for name, at in names.items():
        slot(connection, "fires", at, job_id=ids[name], fired_at=now - HOUR)
    fresh = now - 10 * MINUTE
    slot(connection, "fires", fresh, job_id=job_id("fires", fresh), fired_at=now + HOUR)
    connection.execute(
        text("INSERT INTO leveret_outbox (job_id, actor, body) VALUES (:id, 'a.b', '{}')"),
        {"id": ids["sent"]},
    )
    job = text("INSERT INTO jobs (id, created_at, state) VALUES (:id, :at, 'queued')")
    connection.execute(job, {"id": ids["known"], "at": names["known"]})
    connection.execute(job, {"id": ids["refiled"], "at": now})
    connection.execute(
        text("INSERT INTO job_ids (id, created_at) VALUES (:id, :at)"),
        {"id": ids["refiled"], "at": now},
    )
    (lost,) = gaps.find(connection).without_job
    assert (lost.schedule, lost.slot, lost.job_id) == ("fires", names["lost"], ids["lost"])
    assert gaps.find(connection, schedule="other").is_empty
    assert gaps.find(connection, job_grace=2 * HOUR).is_empty


def outbox(connection: Connection) -> list[tuple[str, dict]]:
    """Return what is to be published."""
    rows = connection.execute(text("SELECT job_id, options FROM leveret_outbox ORDER BY id"))
    return [(row.job_id, row.options) for row in rows]


def test_a_gap_is_repaired_by_firing_its_slot(connection, now):
    """Once: a second repair finds that it was decided on."""
    make(connection, "mend", since=now - HOUR, last_slot=now)
    steady(connection, "mend", now - HOUR, now)
    at = now - 30 * MINUTE
    forget(connection, "mend", at, at)
    assert repair.fire(connection, "mend", at, by="somebody")
    ((name, options),) = outbox(connection)
    assert name == job_id("mend", at)
    assert options["schedule"] == "mend"
    row = connection.execute(
        text("SELECT cause, asked_by, outcome, job_id FROM schedule_slots WHERE slot = :at"),
        {"at": at},
    ).one()
    assert tuple(row) == ("repair", "somebody", "fired", name)
    assert gaps.find(connection).is_empty
    assert not repair.fire(connection, "mend", at, by="somebody")
    assert len(outbox(connection)) == 1


def test_what_is_no_slot_of_the_schedule_is_not_fired(connection, now):
    """Nor what was skipped meanwhile, nor what was before its time, nor that of no schedule."""
    make(connection, "same", since=now - HOUR, last_slot=now)
    slot(connection, "same", now - 20 * MINUTE, until=now, outcome="skipped")
    for at in (now - 30.5 * MINUTE, now - 5 * MINUTE, now - 2 * HOUR):
        assert not repair.fire(connection, "same", at, by="somebody")
    assert not repair.fire(connection, "none", now - 30 * MINUTE, by="somebody")
    assert outbox(connection) == []


def test_a_slot_without_a_job_is_repaired_by_publishing_it_again(connection, now):
    """Under its id, and not when somebody knows it, or nobody what it was."""
    make(connection, "again", since=now - 2 * HOUR, last_slot=now)
    at = now - HOUR
    name = job_id("again", at)
    assert not repair.publish_again(connection, "again", at)
    slot(connection, "again", at, job_id=name)
    assert repair.publish_again(connection, "again", at)
    assert [found for found, _ in outbox(connection)] == [name]
    assert not repair.publish_again(connection, "again", at)
    connection.execute(text("DELETE FROM leveret_outbox"))
    job = text("INSERT INTO jobs (id, created_at, state) VALUES (:id, :at, 'queued')")
    connection.execute(job, {"id": name, "at": at})
    assert not repair.publish_again(connection, "again", at)
    slot(connection, "vanished", at, job_id=new_id())
    assert not repair.publish_again(connection, "vanished", at)
