"""The rows become what code and files declare, and nothing else is touched."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, select

from leveret.errors import ConfigurationError
from leveret.schedules import store
from leveret.schedules.declared import Declared
from leveret.schedules.definition import Definition
from leveret.schedules.reconcile import reconcile
from leveret.schedules.trigger import Cron, Every
from leveret.store.schema import AuditEntry, Schedule

HOURLY = Every(timedelta(hours=1))


@pytest.fixture
def empty(database_engine):
    """Return an engine of a database that has no schedules, and no entries about any."""
    with database_engine.begin() as connection:
        connection.execute(delete(Schedule))
        connection.execute(delete(AuditEntry).where(AuditEntry.action.startswith("schedule.")))
    return database_engine


def declared(*names: str, origin: str = "code", **fields) -> dict[str, Declared]:
    """Declare schedules."""
    made = (
        Definition(**{"name": name, "actor": "email.send", "trigger": HOURLY, **fields})
        for name in names
    )
    return {
        one.name: Declared(definition=one, origin=origin, where=f"in the test of {one.name}")
        for one in made
    }


def told(changes) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return what reconciling did, shortly."""
    return [(change.name, change.action, change.fields) for change in changes]


def test_what_is_declared_is_added_changed_and_removed(empty, caplog):
    """Logged and audited with who did it; the same again changes nothing; a dry run never does."""
    caplog.set_level(logging.INFO)
    first = declared("a", "b", "c")
    second = declared("a") | declared("b", arguments={"to": "ada"}) | declared("d", origin="file")
    with empty.begin() as connection:
        assert told(reconcile(connection, first, by="s", dry_run=True)) == [
            (name, "added", ()) for name in "abc"
        ]
        assert store.listing(connection) == []
        reconcile(connection, first, by="scheduler:host:1")
        assert [(s.name, s.origin, s.created_by) for s in store.listing(connection)] == [
            (name, "code", "scheduler:host:1") for name in "abc"
        ]
        assert reconcile(connection, first, by="s") == []
        wanted = [
            ("b", "changed", ("arguments",)),
            ("d", "added", ()),
            ("c", "removed", ()),
        ]
        assert told(reconcile(connection, second, by="s", dry_run=True)) == wanted
        assert store.get(connection, "c") is not None
        assert told(reconcile(connection, second, by="s")) == wanted
        assert [(s.name, s.origin, s.version) for s in store.listing(connection)] == [
            ("a", "code", 1),
            ("b", "code", 2),
            ("d", "file", 1),
        ]
        actions = connection.execute(
            select(AuditEntry.action, AuditEntry.target)
            .where(AuditEntry.action.startswith("schedule."))
            .order_by(AuditEntry.id)
        ).all()
    assert [tuple(action) for action in actions] == [
        *(("schedule.create", name) for name in "abc"),
        ("schedule.change", "b"),
        ("schedule.remove", "c"),
        ("schedule.create", "d"),
    ]
    assert "schedule b (code) is changed: arguments" in caplog.messages
    assert "ada" not in caplog.text


def test_everything_about_a_declaration_is_compared_as_it_is_stored(empty):
    """A schedule with all that there can be is the same after it was written."""
    full = declared(
        "full",
        trigger=Cron("0 0 9 * * MON-FRI", "Europe/Lisbon"),
        arguments={"when": "x", "n": {"b": 1, "a": [1.5, None]}},
        queue="bulk",
        options={"unique_for": 60, "on_conflict": "replace"},
        jitter=timedelta(seconds=0.1),
        window=timedelta(days=2),
        description="ü",
    )
    with empty.begin() as connection:
        reconcile(connection, full, by="s")
        assert reconcile(connection, full, by="s") == []
        assert store.get(connection, "full").definition == full["full"].definition


def test_pauses_are_kept_and_what_the_api_made_is_left_alone(empty):
    """Also when a declaration changes, or moves from code to a file."""
    with empty.begin() as connection:
        reconcile(connection, declared("a"), by="s")
        store.pause(connection, "a", by="ada")
        mine = declared("mine")["mine"].definition
        store.create(connection, mine, by="ada")
        changed = declared("a", origin="file", trigger=Every(timedelta(minutes=5)))
        assert told(reconcile(connection, changed, by="s")) == [
            ("a", "changed", ("expression", "origin"))
        ]
        found = store.get(connection, "a")
        assert (found.origin, found.state, found.paused_by) == ("file", "paused", "ada")
        reconcile(connection, {}, by="s")
        assert [s.name for s in store.listing(connection)] == ["mine"]


def test_a_name_that_the_api_has_is_an_error_that_names_both(empty):
    """And nothing is changed."""
    both = declared("a", "mine")
    with empty.begin() as connection:
        store.create(connection, both["mine"].definition, by="cli:ada@host")
        with pytest.raises(ConfigurationError) as caught:
            reconcile(connection, both, by="s")
        assert "in the test of mine" in str(caught.value)
        assert "cli:ada@host" in str(caught.value)
        assert [s.name for s in store.listing(connection)] == ["mine"]


def test_two_at_once_add_each_schedule_once(empty):
    """The second waits, and finds nothing left to do."""
    several = declared(*(f"s{number}" for number in range(30)))
    gate, results, failures = threading.Barrier(3, timeout=20), [], []

    def one(number: int) -> None:
        try:
            with empty.begin() as connection:
                connection.execute(select(1))
                gate.wait()
                results.append(len(reconcile(connection, several, by=f"scheduler:{number}")))
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert sorted(results) == [0, 0, 30]
    with empty.connect() as connection:
        assert len({s.created_by for s in store.listing(connection)}) == 1


def test_a_pause_during_a_reconcile_is_not_lost(empty):
    """Whoever changes the row second changes what the first has left."""
    before, after = declared("a"), declared("a", description="changed")
    with empty.begin() as connection:
        reconcile(connection, before, by="s")
    paused = threading.Event()

    def pause() -> None:
        with empty.begin() as connection:
            store.pause(connection, "a", by="ada")
            paused.set()

    with empty.begin() as connection:
        other = threading.Thread(target=pause)
        other.start()
        assert paused.wait(20)
        reconcile(connection, after, by="s")
    other.join(20)
    with empty.connect() as connection:
        found = store.get(connection, "a")
    assert (found.state, found.version) == ("paused", 3)
    assert found.definition == replace(before["a"].definition, description="changed")
