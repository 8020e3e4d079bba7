"""The canary says how long jobs take on their whole way, and for how long none has come through."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from leveret import metrics
from leveret.housekeeping import BEAT, CHECK, canary
from leveret.housekeeping.actors import SHIPPED
from leveret.housekeeping.exporter import Exporter
from leveret.schedules import store
from leveret.schedules.definition import job_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

MINUTE = timedelta(minutes=1)


@pytest.fixture
def connection(ledger: Engine) -> Iterator[Connection]:
    """Return a connection to a ledger with the shipped schedules, which are two days old."""
    with ledger.begin() as made:
        for shipped in SHIPPED:
            definition = shipped.schedule.definition(shipped.name)
            store.create(made, definition, origin="code", by="test")
        made.execute(text("UPDATE schedules SET since = now() - interval '2 days'"))
        yield made


def _now(connection: Connection) -> datetime:
    return connection.execute(text("SELECT now()")).scalar_one()


def _slot(
    connection: Connection,
    ago: timedelta,
    *,
    schedule: str = BEAT,
    took: timedelta = timedelta(seconds=2),
    state: str = "succeeded",
    cause: str = "schedule",
    result: Any = None,
) -> datetime:
    """Write a slot that was due so long ago, and where its job stands."""
    moment = _now(connection) - ago
    slot = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    found = job_id(schedule, slot)
    connection.execute(
        text(
            "INSERT INTO schedule_slots (schedule, slot, job_id, cause, due_at, fired_at)"
            " VALUES (:schedule, :slot, :job_id, :cause, :slot, :slot)"
        ),
        {"schedule": schedule, "slot": slot, "job_id": found, "cause": cause},
    )
    connection.execute(
        text(
            "INSERT INTO jobs (id, created_at, state, updated_at, result)"
            " VALUES (:job_id, :slot, :state, :at, :result)"
        ),
        {
            "job_id": found,
            "slot": slot,
            "state": state,
            "at": slot + took,
            "result": None if result is None else json.dumps(result).encode(),
        },
    )
    return slot


def test_a_canary_that_comes_back_is_timed(connection: Connection) -> None:
    """From when it was due to when the ledger was told of its success."""
    _slot(connection, 5 * MINUTE, took=timedelta(seconds=40))
    slot = _slot(connection, timedelta(seconds=90), took=timedelta(seconds=1.5))
    found = canary.observe(connection)
    assert found.slot == slot
    assert found.seconds == 1.5
    assert 90 <= found.age_seconds < 120


@pytest.mark.parametrize("state", ["queued", "running", "retrying", "dead", "cancelled"])
def test_a_canary_that_does_not_come_back_makes_it_older(
    connection: Connection, state: str
) -> None:
    """Only a success counts; that of a backfill, of a slot long past, does not."""
    good = _slot(connection, 7 * MINUTE)
    _slot(connection, 2 * MINUTE, state=state)
    _slot(connection, 1 * MINUTE, cause="backfill", took=timedelta(days=1))
    found = canary.observe(connection)
    assert found.slot == good
    assert 420 <= found.age_seconds < 450


def test_the_last_one_is_found_after_hours(connection: Connection) -> None:
    """A broken night is as old as it is."""
    _slot(connection, timedelta(hours=9, minutes=30))
    found = canary.observe(connection)
    assert found.age_seconds == pytest.approx(9.5 * 3600, abs=60)


def test_where_none_ever_came_back_its_age_is_that_of_the_wish(connection: Connection) -> None:
    """A new installation whose jobs do not run is noticed as well."""
    connection.execute(text("UPDATE schedules SET since = now() - interval '10 minutes'"))
    found = canary.observe(connection)
    assert found.seconds is None
    assert 600 <= found.age_seconds < 630


def test_after_a_pause_the_age_begins_anew(connection: Connection) -> None:
    """An hour in which there was to be no canary is no hour in which none came back."""
    _slot(connection, timedelta(hours=1))
    connection.execute(text("UPDATE schedules SET since = now() - interval '1 minute'"))
    found = canary.observe(connection)
    assert 60 <= found.age_seconds < 90
    assert found.seconds == 2


def test_where_there_is_to_be_none_there_is_no_age(connection: Connection) -> None:
    """Operators may pause it, and housekeeping may be off."""
    _slot(connection, 3 * MINUTE)
    store.pause(connection, BEAT, by="test")
    assert canary.observe(connection) == canary.Canary()
    connection.execute(text("DELETE FROM schedules"))
    assert canary.observe(connection) == canary.Canary()


def test_the_age_grows_while_the_database_is_not_asked(connection: Connection) -> None:
    """What cannot be seen is not well."""
    clock = 1000.0
    exporter = Exporter(clock=lambda: clock)
    assert math.isnan(metrics.CANARY_AGE._value.get()) or math.isnan(exporter.age())
    _slot(connection, MINUTE)
    exporter.look(connection)
    before = _sample(metrics.CANARY_AGE)
    clock += 500
    assert _sample(metrics.CANARY_AGE) == before + 500
    assert _sample(metrics.CANARY_SECONDS) == 2


def test_slots_that_are_lost_are_in_the_metrics(connection: Connection) -> None:
    """As the last check has found them; no check of late says nothing."""
    exporter = Exporter()
    exporter.look(connection)
    assert math.isnan(_sample(metrics.SCHEDULE_GAPS))
    _slot(connection, timedelta(hours=5), schedule=CHECK, result={"gaps": 9})
    exporter.look(connection)
    assert math.isnan(_sample(metrics.SCHEDULE_GAPS))
    _slot(connection, 20 * MINUTE, schedule=CHECK, result={"gaps": 3})
    exporter.look(connection)
    assert _sample(metrics.SCHEDULE_GAPS) == 3
    _slot(connection, 10 * MINUTE, schedule=CHECK, result="what")
    exporter.look(connection)
    assert math.isnan(_sample(metrics.SCHEDULE_GAPS))


def _sample(gauge: Any) -> float:
    (family,) = gauge.collect()
    return family.samples[0].value
