"""Running a schedule now, and firing what is past: each slot once, whoever else does it too."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from leveret.errors import BackfillRefused, UnknownSchedule
from leveret.message import job_time
from leveret.schedules import backfill, store
from leveret.schedules.decision import decide
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.run import run
from leveret.schedules.trigger import Every
from leveret.store.schema import AuditEntry, OutboxRow, Schedule, ScheduleSlot

HOUR = timedelta(hours=1)
MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)


def hours(*numbers: int) -> list[datetime]:
    """Return hours of the day that is backfilled."""
    return [MIDNIGHT + number * HOUR for number in numbers]


@pytest.fixture
def name(database_engine, new_name):
    """Make an hourly schedule and return its name."""
    made = Definition(
        name=new_name(), actor="email.send", trigger=Every(HOUR), arguments={"to": "ada"}
    )
    with database_engine.begin() as connection:
        store.create(connection, made, by="test")
    return made.name


def rows_of(connection, name):
    """Return slots: their hour of the day, hours that they are, outcome, cause, count."""
    rows = connection.execute(
        select(ScheduleSlot.__table__)
        .where(ScheduleSlot.schedule == name)
        .order_by(ScheduleSlot.slot)
    ).mappings()
    return [
        (
            (row["slot"] - MIDNIGHT) // HOUR,
            ((row["until"] or row["slot"]) - MIDNIGHT) // HOUR,
            row["outcome"],
            row["cause"],
            row["count"],
        )
        for row in rows
    ]


def skip(connection, name, first: int, last: int, count: int | None) -> None:
    """Record slots in a row that were skipped."""
    connection.execute(
        insert(ScheduleSlot).values(
            schedule=name,
            slot=MIDNIGHT + first * HOUR,
            until=None if first == last else MIDNIGHT + last * HOUR,
            count=count,
            outcome="skipped",
            reason="missed",
            due_at=MIDNIGHT + first * HOUR,
        )
    )


def jobs_of(connection, name):
    """Return the rows of the schedule's jobs in the outbox, in their order."""
    rows = connection.execute(
        select(OutboxRow.job_id, OutboxRow.actor, OutboxRow.body, OutboxRow.options).order_by(
            OutboxRow.id
        )
    ).mappings()
    return [row for row in rows if (row["options"] or {}).get("schedule") == name]


def test_a_run_now_is_a_slot_of_its_own_with_a_job(database_engine, name):
    """Also while it is paused; twice at once are two, and the schedule's own slots stay."""
    with database_engine.begin() as connection:
        store.pause(connection, name, by="test")
        before = store.get(connection, name)
        first, second = run(connection, name, by="ada"), run(connection, name, by="ada")
        assert store.get(connection, name) == before
        with pytest.raises(UnknownSchedule):
            run(connection, "no.such", by="ada")
        now = store.database_time(connection)
        jobs = jobs_of(connection, name)
        row = (
            connection.execute(
                select(ScheduleSlot.__table__).where(
                    ScheduleSlot.schedule == name, ScheduleSlot.slot == first.slot
                )
            )
            .mappings()
            .one()
        )
        audited = connection.scalars(
            select(AuditEntry.action).where(AuditEntry.target == name).order_by(AuditEntry.id)
        ).all()
    assert first.slot < second.slot <= now
    assert first.slot.microsecond % 1000 == 0
    assert job_time(first.job_id) == pytest.approx(first.slot.timestamp())
    assert (row["cause"], row["outcome"], row["asked_by"], row["job_id"]) == (
        "run",
        "fired",
        "ada",
        first.job_id,
    )
    assert [job["job_id"] for job in jobs] == [first.job_id, second.job_id]
    assert (jobs[0]["actor"], bytes(jobs[0]["body"])) == ("email.send", b'{"to":"ada"}')
    assert jobs[0]["options"]["app_id"] == "leveret-scheduler"
    assert datetime.fromisoformat(jobs[0]["options"]["slot"]) == first.slot
    assert audited == ["schedule.create", "schedule.pause", "schedule.run", "schedule.run"]


def test_a_run_now_takes_no_slot_of_the_schedule(database_engine, new_name):
    """Its moment is not one that the trigger names."""
    made = Definition(name=new_name(), actor="email.send", trigger=Every(timedelta(seconds=1)))
    with database_engine.begin() as connection:
        store.create(connection, made, by="test")
        slots = [run(connection, made.name, by="test").slot for _ in range(50)]
    assert len(set(slots)) == 50
    assert all(slot.microsecond for slot in slots)


def test_what_was_not_fired_is_planned_and_fired(database_engine, name):
    """Slots without a row and skipped ones; those that were fired, or wait, are left alone."""
    with database_engine.begin() as connection:
        for hour, outcome in ((2, "fired"), (3, "queued")):
            connection.execute(
                insert(ScheduleSlot).values(
                    schedule=name,
                    slot=MIDNIGHT + hour * HOUR,
                    outcome=outcome,
                    due_at=MIDNIGHT,
                )
            )
        skip(connection, name, 4, 4, 1)
        planned = backfill.plan(connection, name, start=MIDNIGHT, end=MIDNIGHT + 5 * HOUR)
        assert list(planned.slots) == hours(0, 1, 4, 5)
        assert (planned.fired, planned.more) == (2, False)
        fired = backfill.backfill(
            connection, name, start=MIDNIGHT, end=MIDNIGHT + 5 * HOUR, by="ada"
        )
        assert fired == list(planned.jobs)
        jobs = jobs_of(connection, name)
        again = backfill.plan(connection, name, start=MIDNIGHT, end=MIDNIGHT + 5 * HOUR)
        assert (again.slots, again.fired) == ((), 6)
        assert rows_of(connection, name) == [
            (0, 0, "fired", "backfill", 1),
            (1, 1, "fired", "backfill", 1),
            (2, 2, "fired", "schedule", 1),
            (3, 3, "queued", "schedule", 1),
            (4, 4, "fired", "backfill", 1),
            (5, 5, "fired", "backfill", 1),
        ]
        (entry,) = connection.scalars(
            select(AuditEntry.detail).where(
                AuditEntry.target == name, AuditEntry.action == "schedule.backfill"
            )
        ).all()
    assert [job["job_id"] for job in jobs] == [job_id(name, slot) for slot in hours(0, 1, 4, 5)]
    assert entry["slots"] == 4


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ([(0, 9)], []),
        ([(3, 4)], [(0, 9, 8)]),
        ([(0, 1)], [(2, 9, 8)]),
        ([(2, 3), (0, 1)], [(4, 9, 6)]),
        ([(9, 9)], [(0, 9, 9)]),
        ([(1, 9), (0, 0)], []),
        ([(0, 8)], [(9, 9, 1)]),
    ],
)
def test_a_row_of_skipped_slots_gives_away_those_that_are_fired(
    database_engine, name, wanted, left
):
    """It counts one less for each, and begins with the first that is still skipped."""
    with database_engine.begin() as connection:
        skip(connection, name, 0, 9, 10)
        for first, last in wanted:
            fired = backfill.backfill(
                connection,
                name,
                start=MIDNIGHT + first * HOUR,
                end=MIDNIGHT + last * HOUR,
                by="test",
            )
            assert len(fired) == last - first + 1
        rows = rows_of(connection, name)
    skipped = [
        (first, last, count) for first, last, outcome, _, count in rows if outcome != "fired"
    ]
    assert skipped == left
    assert sum(row[4] for row in rows) == 10


@pytest.mark.parametrize(
    ("wanted", "limit", "reason"),
    [
        ((0, 5), 5, "too-many"),
        ((0, 5), 0, "too-many"),
        ((0, 5), 10_001, "too-many"),
        ((5, 0), 10, "empty-range"),
        ((0, 10_000_000), 10, "future"),
    ],
)
def test_too_much_or_too_early_is_refused(database_engine, name, wanted, limit, reason):
    """And nothing is fired."""
    with database_engine.begin() as connection:
        with pytest.raises(BackfillRefused) as caught:
            backfill.backfill(
                connection,
                name,
                start=MIDNIGHT + wanted[0] * HOUR,
                end=MIDNIGHT + wanted[1] * HOUR,
                limit=limit,
                by="test",
            )
        assert caught.value.reason == reason
        assert rows_of(connection, name) == []


def test_a_plan_stops_at_its_limit(database_engine, new_name):
    """Years of seconds are not walked through; there is more, it says."""
    made = Definition(name=new_name(), actor="email.send", trigger=Every(timedelta(seconds=1)))
    with database_engine.begin() as connection:
        store.create(connection, made, by="test")
        planned = backfill.plan(connection, made.name, start=MIDNIGHT, end=MIDNIGHT + 100 * HOUR)
        assert (len(planned.slots), planned.more) == (100, True)
        with pytest.raises(UnknownSchedule):
            backfill.plan(connection, "no.such", start=MIDNIGHT, end=MIDNIGHT)


def test_backfills_at_once_fire_each_slot_once(database_engine, name):
    """And so does a scheduler that fires some of them meanwhile."""
    gate, fired, failures = threading.Barrier(4, timeout=20), [], []

    def one(number: int) -> None:
        try:
            with database_engine.begin() as connection:
                connection.execute(select(1))
                gate.wait()
                fired.extend(
                    backfill.backfill(
                        connection,
                        name,
                        start=MIDNIGHT,
                        end=MIDNIGHT + 99 * HOUR,
                        limit=100,
                        by=f"test {number}",
                    )
                )
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert sorted(one.slot for one in fired) == hours(*range(100))
    with database_engine.connect() as connection:
        assert len(jobs_of(connection, name)) == 100


def test_the_first_slot_that_a_scheduler_decides_on_has_no_row(database_engine, name):
    """What it has not reached yet is fired in its place, and it goes on behind that."""
    with database_engine.begin() as connection:
        connection.execute(update(Schedule).where(Schedule.name == name).values(since=MIDNIGHT))

        def fill(first: int, last: int) -> tuple[object, object]:
            backfill.backfill(
                connection,
                name,
                start=MIDNIGHT + first * HOUR,
                end=MIDNIGHT + last * HOUR,
                by="test",
            )
            found = store.get(connection, name)
            return found.last_slot, found.version

        assert fill(-3, -1) == (None, 1)
        assert fill(3, 4) == (None, 1)
        assert fill(1, 1) == (MIDNIGHT + HOUR, 1)
        assert fill(2, 2) == (MIDNIGHT + 4 * HOUR, 1)
        found = store.get(connection, name)
        plan = decide(
            found.definition,
            after=found.last_slot,
            now=MIDNIGHT + 9.5 * HOUR,
            grace=timedelta(seconds=30),
        )
    assert found.next_due_at == MIDNIGHT + 5 * HOUR
    assert [run.first for run in plan.skipped] == [MIDNIGHT + 5 * HOUR]
