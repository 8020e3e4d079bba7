"""What becomes of a schedule in the database when somebody makes, changes, pauses or removes it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import select, text, update

from leveret.errors import (
    InvalidSchedule,
    ScheduleDeclared,
    ScheduleExists,
    UnknownSchedule,
)
from leveret.schedules import store
from leveret.schedules.definition import Definition
from leveret.schedules.policy import Missed, Overlap
from leveret.schedules.trigger import At, Every
from leveret.store.engine import conninfo
from leveret.store.schema import AuditEntry, Schedule, ScheduleSlot

HOURLY = Every(timedelta(hours=1))


@pytest.fixture
def hourly(new_name):
    """Return a function that makes up an hourly schedule."""
    return lambda **fields: Definition(
        **{"name": new_name(), "actor": "email.send", "trigger": HOURLY, **fields}
    )


def slots_of(connection, name):
    """Return the slots of a schedule that were decided on."""
    return (
        connection.execute(
            select(ScheduleSlot.__table__)
            .where(ScheduleSlot.schedule == name)
            .order_by(ScheduleSlot.slot)
        )
        .mappings()
        .all()
    )


def age(connection, name, back: timedelta) -> None:
    """Let a schedule be older than it is."""
    connection.execute(
        update(Schedule).where(Schedule.name == name).values(since=Schedule.since - back)
    )


def test_a_schedule_is_read_as_it_was_written(database_engine, hourly):
    """Every field of a definition comes back, and what the database adds is there."""
    definition = hourly(
        arguments={"to": "ada@example.com", "n": [1, 2.5, None]},
        queue="bulk",
        options={"priority": 3, "unique_for": 60},
        jitter=timedelta(seconds=1.5),
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2096, 1, 1, tzinfo=UTC),
        missed=Missed.ALL,
        window=timedelta(days=1),
        overlap=Overlap.QUEUE,
        description="Says hello",
        trigger=Every(timedelta(seconds=7.5), datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)),
    )
    with database_engine.begin() as connection:
        made = store.create(connection, definition, by="test")
        found = store.get(connection, definition.name)
        now = store.database_time(connection)
    assert found == made
    assert found.definition == definition
    assert (found.origin, found.version, found.state) == ("api", 1, "active")
    assert (found.created_by, found.last_slot, found.paused_at) == ("test", None, None)
    slot = next(definition.slots(found.since))
    assert found.next_due_at == definition.due(slot)
    assert timedelta(0) <= now - found.since < timedelta(seconds=20)


def test_a_name_is_taken_once(database_engine, hourly):
    """The second is refused, and who made the first is said."""
    definition = hourly()
    with database_engine.begin() as connection:
        store.create(connection, definition, by="test")
        with pytest.raises(ScheduleExists, match="already, by api"):
            store.create(connection, definition, by="test")
        with pytest.raises(UnknownSchedule):
            store.change(connection, "no.such", replace(definition, name="no.such"), by="test")
        assert store.get(connection, "no.such") is None


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"name": "no blanks"}, "name", "no spaces"),
        ({"actor": "no actor"}, "actor", "dotted words"),
        ({"queue": "any"}, "queue", "other than 'any'"),
        ({"trigger": At(datetime(2020, 1, 1, tzinfo=UTC))}, "at", "never fire"),
        ({"end": datetime(2020, 1, 1, tzinfo=UTC)}, "every", "never fire"),
        (
            {
                "start": datetime(2026, 1, 2, tzinfo=UTC),
                "end": datetime(2026, 1, 1, tzinfo=UTC),
            },
            "end",
            "not later than the start",
        ),
        ({"start": datetime(2026, 1, 1)}, "start", "needs a time zone"),  # noqa: DTZ001
        ({"jitter": timedelta(seconds=-1)}, "jitter", "one day"),
        ({"window": timedelta(0)}, "window", "longer than nothing"),
        ({"description": "x\0"}, "description", "characters"),
        ({"arguments": {"x": "y" * 1024 * 1024}}, "arguments", "are the limit"),
        ({"arguments": {"x": object()}}, "arguments", "cannot be written"),
        (
            {"options": {"expires_at": "2026-01-01T00:00:00Z"}},
            "options",
            "expires_at'.* no such option",
        ),
        ({"options": {"priority": 1000}}, "options", "priority"),
        ({"options": {"max_retries": -1}}, "options", "max_retries"),
        ({"options": {"idempotency_key": "k"}}, "options", "only the first job"),
    ],
)
def test_what_makes_no_sense_is_refused(database_engine, hourly, fields, field, words):
    """The error says which field it is about, and nothing is written."""
    with database_engine.begin() as connection:
        before = len(store.listing(connection))
        with pytest.raises(InvalidSchedule, match=words) as caught:
            store.create(connection, hourly(**fields), by="test")
        assert caught.value.field == field
        assert len(store.listing(connection)) == before


def test_a_change_of_the_job_keeps_its_slots(database_engine, hourly):
    """Arguments are changed: one version more, the same slots; the same again is no change."""
    definition = hourly(arguments={"to": "ada"})
    with database_engine.begin() as connection:
        made = store.create(connection, definition, by="ada")
        other = replace(definition, arguments={"to": "grace", "secret": "hush"})
        changed = store.change(connection, definition.name, other, by="grace")
        assert (changed.version, changed.since, changed.next_due_at) == (
            2,
            made.since,
            made.next_due_at,
        )
        assert (changed.definition, changed.updated_by) == (other, "grace")
        reordered = replace(other, arguments={"secret": "hush", "to": "grace"})
        assert store.change(connection, definition.name, reordered, by="x").version == 2
        entries = connection.execute(
            select(AuditEntry.action, AuditEntry.who, AuditEntry.detail)
            .where(AuditEntry.target == definition.name)
            .order_by(AuditEntry.id)
        ).all()
    assert [(e.action, e.who) for e in entries] == [
        ("schedule.create", "ada"),
        ("schedule.change", "grace"),
    ]
    assert entries[1].detail == {"version": 2, "changed": {"body": "changed"}}
    assert "hush" not in json.dumps([e.detail for e in entries])


def test_a_change_of_the_trigger_starts_the_slots_anew(database_engine, hourly):
    """What had passed undecided is recorded as skipped by the change, and does not come back."""
    definition = hourly()
    with database_engine.begin() as connection:
        made = store.create(connection, definition, by="test")
        age(connection, definition.name, timedelta(hours=3))
        other = replace(definition, trigger=Every(timedelta(minutes=1)))
        changed = store.change(connection, definition.name, other, by="test")
        (skipped,) = slots_of(connection, definition.name)
    assert changed.since >= made.since
    assert changed.next_due_at == next(other.slots(changed.since))
    assert (skipped["outcome"], skipped["reason"], skipped["count"]) == ("skipped", "changed", 3)
    assert skipped["until"] - skipped["slot"] == timedelta(hours=2)
    assert changed.since - skipped["until"] < timedelta(hours=1)


def test_slots_that_pass_while_it_is_paused_are_skipped(database_engine, hourly):
    """They are recorded in runs around what a backfill has fired meanwhile; then it goes on."""
    definition = hourly()
    with database_engine.begin() as connection:
        store.create(connection, definition, by="test")
        paused = store.pause(connection, definition.name, by="ada")
        assert (paused.state, paused.paused_by, paused.version) == ("paused", "ada", 2)
        assert store.pause(connection, definition.name, by="grace") == paused
        age(connection, definition.name, timedelta(hours=5))
        since = store.get(connection, definition.name).since
        third = list(zip(range(3), definition.slots(since), strict=False))[2][1]
        connection.execute(
            text(
                "INSERT INTO schedule_slots (schedule, slot, cause, due_at)"
                " VALUES (:name, :slot, 'backfill', :slot)"
            ),
            {"name": definition.name, "slot": third},
        )
        resumed = store.resume(connection, definition.name, by="ada")
        rows = slots_of(connection, definition.name)
        assert store.resume(connection, definition.name, by="ada") == resumed
    assert (resumed.state, resumed.paused_by, resumed.version) == ("active", None, 3)
    assert resumed.since > paused.paused_at
    assert [(row["outcome"], row["reason"], row["count"]) for row in rows] == [
        ("skipped", "paused", 2),
        ("fired", None, 1),
        ("skipped", "paused", 2),
    ]


def test_too_many_passed_slots_are_not_counted(database_engine, hourly):
    """A pause of a year at a slot a second is one row, written at once."""
    definition = hourly(trigger=Every(timedelta(seconds=1)))
    with database_engine.begin() as connection:
        store.create(connection, definition, by="test")
        store.pause(connection, definition.name, by="test")
        age(connection, definition.name, timedelta(days=365))
        began = datetime.now(UTC)
        resumed = store.resume(connection, definition.name, by="test")
        assert datetime.now(UTC) - began < timedelta(seconds=5)
        (row,) = slots_of(connection, definition.name)
    assert row["count"] is None
    assert timedelta(0) <= resumed.since - row["until"] <= timedelta(seconds=1)


def test_a_removed_schedule_leaves_what_it_did(database_engine, hourly):
    """Slots stay, those that waited are given up, and the name is free again."""
    definition = hourly()
    with database_engine.begin() as connection:
        store.create(connection, definition, by="test")
        connection.execute(
            text(
                "INSERT INTO schedule_slots (schedule, slot, outcome, due_at)"
                " VALUES (:name, now(), 'queued', now())"
            ),
            {"name": definition.name},
        )
        store.remove(connection, definition.name, by="test")
        (slot,) = slots_of(connection, definition.name)
        assert (slot["outcome"], slot["reason"]) == ("skipped", "removed")
        with pytest.raises(UnknownSchedule):
            store.remove(connection, definition.name, by="test")
        assert store.create(connection, definition, by="test").version == 1


def test_what_code_declares_is_not_changed_elsewhere(database_engine, hourly):
    """It can be paused and resumed, and no more."""
    definition = hourly()
    with database_engine.begin() as connection:
        store.create(connection, definition, origin="code", by="scheduler")
        with pytest.raises(ScheduleDeclared, match="next to its actor"):
            store.change(connection, definition.name, definition, by="test")
        with pytest.raises(ScheduleDeclared):
            store.remove(connection, definition.name, by="test")
        assert store.pause(connection, definition.name, by="test").state == "paused"
        assert store.resume(connection, definition.name, by="test").state == "active"


def test_schedules_are_listed_in_pages_and_by_what_they_are(database_engine, hourly):
    """By name, behind a name, and by actor, origin and state."""
    made = sorted((hourly(actor="list.test") for _ in range(4)), key=lambda d: d.name)
    with database_engine.begin() as connection:
        for definition in made:
            store.create(connection, definition, by="test")
        store.pause(connection, made[1].name, by="test")

        def found(**filters):
            return [s.name for s in store.listing(connection, actor="list.test", **filters)]

        names = [definition.name for definition in made]
        assert found() == names
        assert found(after=names[0], limit=2) == names[1:3]
        assert found(paused=True) == [names[1]]
        assert found(origin="code") == []
        assert len(found(paused=False)) == 3


def test_changes_are_told_to_who_listens(database_engine, ledger_database, hourly):
    """Once for each change, when it is committed."""
    definition = hourly()
    with psycopg.connect(conninfo(ledger_database), autocommit=True) as listener:
        listener.execute(f"LISTEN {store.CHANNEL}")
        with database_engine.begin() as connection:
            store.create(connection, definition, by="test")
        with database_engine.begin() as connection:
            store.pause(connection, definition.name, by="test")
        told = [
            notice.payload
            for notice in listener.notifies(timeout=20, stop_after=2)
            if notice.payload == definition.name
        ]
    assert told == [definition.name, definition.name]


def test_a_change_and_a_pause_at_once_are_both_kept(database_engine, hourly):
    """The later one waits for the earlier, and changes what that has left."""
    definition = hourly()
    with database_engine.begin() as connection:
        store.create(connection, definition, by="test")
    locked, failures = threading.Event(), []

    def pause() -> None:
        try:
            locked.wait(20)
            with database_engine.begin() as connection:
                store.pause(connection, definition.name, by="pauser")
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    other = threading.Thread(target=pause)
    other.start()
    with database_engine.begin() as connection:
        found = store.get(connection, definition.name, lock=True)
        locked.set()
        changed = replace(found.definition, description="changed")
        store.change(connection, definition.name, changed, by="changer")
    other.join(20)
    assert failures == []
    with database_engine.begin() as connection:
        after = store.get(connection, definition.name)
    assert (after.version, after.state, after.definition.description) == (3, "paused", "changed")


def test_of_two_that_make_the_same_one_is_refused(database_engine, hourly):
    """Whoever commits first has made it."""
    definition = hourly()
    gate, outcomes = threading.Barrier(2, timeout=20), []

    def make() -> None:
        with database_engine.begin() as connection:
            connection.execute(text("SELECT 1"))
            gate.wait()
            try:
                store.create(connection, definition, by="test")
                outcomes.append("made")
            except ScheduleExists:
                outcomes.append("refused")

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["made", "refused"]
