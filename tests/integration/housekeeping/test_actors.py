"""The actors of housekeeping: declared everywhere, run by whoever has the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from leveret import declaration
from leveret.broker import LeveretBroker
from leveret.housekeeping import CHECK, actors, check, declare
from leveret.housekeeping.sweep import sweep
from leveret.ledger.late import bucket_of
from leveret.message import new_id
from leveret.schedules import Overlap, store
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.trigger import Every
from leveret.store import partition
from tests.support.databases import temporary_database
from tests.support.ledgers import Ledger
from tests.support.recorders import migrated
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from compose.native.paths import Checkout
    from tests.support.workers import Rig

NAMES = {"leveret.beat", "leveret.rollup", "leveret.check", "leveret.sweep", "leveret.retain"}
KEEP = timedelta(days=30)


def _declared(*queues: str, schedules: bool = True) -> LeveretBroker:
    broker = LeveretBroker()
    declare(queues, schedules=schedules, broker=broker)
    return broker


def test_they_belong_to_the_queue_for_schedules() -> None:
    """Or to the first, where there is none of that name."""
    for queues, wanted in (
        (("critical", "default", "bulk", "scheduled"), "scheduled"),
        (("jobs", "slow"), "jobs"),
    ):
        broker = _declared(*queues)
        assert {name: actor.queue_name for name, actor in broker.actors.items()} == dict.fromkeys(
            NAMES, wanted
        )


def test_each_has_a_schedule_that_never_runs_twice_at_once() -> None:
    """By the actor's name, for its queue, and with a word for people."""
    schedules = {one.name: one for one in _declared("default").schedules.values()}
    assert set(schedules) == NAMES
    for name, one in schedules.items():
        assert one.actor == name
        assert one.overlap is Overlap.SKIP
        assert one.queue is None
        assert one.description


def test_without_housekeeping_nothing_runs_by_itself() -> None:
    """The actors are there, for whoever runs them by hand."""
    broker = _declared("default", schedules=False)
    assert set(broker.actors) == NAMES
    assert not broker.schedules


def test_declaring_twice_is_harmless() -> None:
    """A process may load actors more than once."""
    broker = _declared("default")
    declare(["default"], broker=broker)
    assert set(broker.actors) == NAMES


def test_every_process_that_loads_actors_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """And modules without any actor are still a mistake."""
    broker = LeveretBroker()
    monkeypatch.setattr(declaration, "get_broker", lambda: broker)
    with pytest.raises(declaration.ConfigurationError, match="declares no actor"):
        declaration.load_actors(["json"], queues=["default"])

    @declaration.actor("some.thing", broker=broker)
    def thing() -> None: ...

    for _ in range(2):
        declaration.load_actors(["json"], queues=["default"], housekeeping=True)
    assert set(broker.actors) == NAMES | {"some.thing"}


def test_a_worker_without_the_database_says_what_is_missing(
    worker: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs are dead at once, not after retries, and each letter names the setting."""
    monkeypatch.delenv("LEVERET_DATABASE_URL", raising=False)
    declare(["default"], broker=worker.broker)
    worker.start()
    names = NAMES - {"leveret.beat"}
    for name in names:
        worker.publisher.send(name, {}, queue="default")
    letters = worker.letters(len(names))
    assert {letter.properties.type for letter in letters} == names
    for letter in letters:
        assert letter.reason == "refused"
        said = letter.headers["x-leveret-error"]
        assert "LEVERET_DATABASE_URL is not set" in said
        assert letter.properties.type in said


def test_a_canary_needs_no_database(worker: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows how plain jobs fare."""
    monkeypatch.delenv("LEVERET_DATABASE_URL", raising=False)
    declare(["default"], broker=worker.broker)
    worker.start()
    found = worker.publisher.send("leveret.beat", {}, queue="default")
    wait_until(
        lambda: "succeeded" in [record["event"] for record in worker.records(found)],
        what="the canary has succeeded",
    )


def test_they_work_on_the_database_of_the_settings(
    ledger: Engine, housekeeping_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each does its part, and its result, which the ledger keeps, says what."""
    monkeypatch.setenv("LEVERET_DATABASE_URL", housekeeping_database)
    with Ledger(housekeeping_database) as jobs:
        now = datetime.now(UTC)
        jobs.write(new_id(), "succeeded", actor="a", queue="q", started_at=now, finished_at=now)
    assert actors.rollup()["jobs"] == 1
    assert actors.check() == {"gaps": 0, "overdue": 0, "unreadable": [], "named": []}
    assert actors.sweep()["claims"] == 0
    assert actors.retain()["busy"] is False
    for result in (actors.rollup(), actors.check(), actors.sweep(), actors.retain()):
        json.dumps(result)
    with ledger.connect() as connection:
        buckets = connection.execute(text("SELECT bucket FROM job_rollups")).scalars().all()
        done = connection.scalar(
            text("SELECT expires_at > now() + interval '29 hours' FROM leases")
        )
    assert [bucket.astimezone(UTC) for bucket in buckets] == [bucket_of(now)]
    assert done


def test_sweeping_makes_the_days_to_come(ledger: Engine) -> None:
    """Partitions do not depend on one process."""
    with ledger.begin() as connection:
        day = max(partition.days(connection))
        names = [partition.name_of(table, day) for table in partition.PARTITIONED]
        connection.execute(text(f"DROP TABLE {', '.join(names)}"))
    sweep(ledger)
    with ledger.connect() as connection:
        assert day in partition.days(connection)


def test_claims_are_swept_where_they_are(ledger: Engine, checkout: Checkout) -> None:
    """A service's own database with the effects of its jobs has the claims, too."""
    statement = (
        "INSERT INTO claims (actor, key, job_id, state, epoch, expires_at)"
        " VALUES ('a', 'k', 'j', 'done', 1, now() - interval '1 minute')"
    )
    with temporary_database(checkout, "shop") as url, Ledger(migrated(url)) as shop:
        shop._connection.execute(statement)
        with ledger.begin() as connection:
            connection.execute(text(statement))
        assert sweep(ledger, claims_url=url)["claims"] == 2


def _check(engine: Engine, capsys: pytest.CaptureFixture[str]) -> tuple[dict, int]:
    """Run a check as a job does; return its result, and how many lines it has logged."""
    result = dict(check.check(engine, keep=KEEP))
    logged = capsys.readouterr().out.count("schedule.gap")
    with engine.begin() as connection:
        now = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        slot = now.replace(microsecond=now.microsecond // 1000 * 1000)
        values = {
            "schedule": CHECK,
            "slot": slot,
            "job": job_id(CHECK, slot),
            "result": json.dumps(result).encode(),
        }
        connection.execute(
            text(
                "INSERT INTO schedule_slots (schedule, slot, job_id, due_at)"
                " VALUES (:schedule, :slot, :job, :slot)"
            ),
            values,
        )
        connection.execute(
            text(
                "INSERT INTO jobs (id, created_at, state, result)"
                " VALUES (:job, :slot, 'succeeded', :result)"
            ),
            values,
        )
    return result, logged


def test_each_gap_is_logged_once(ledger: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Slots without a row are found, and said when they are new; the number stays."""
    hour = timedelta(hours=1)
    with ledger.begin() as connection:
        definition = Definition(name="report", actor="report.make", trigger=Every(hour))
        store.create(connection, definition, by="test")
        connection.execute(
            text(
                "UPDATE schedules SET since = date_trunc('hour', now()) - interval '5 hours',"
                " last_slot = date_trunc('hour', now()) - interval '2 hours'"
            )
        )
    first, logged = _check(ledger, capsys)
    assert first["gaps"] == logged == 3
    again, logged = _check(ledger, capsys)
    assert (again["gaps"], logged) == (3, 0)
    with ledger.begin() as connection:
        connection.execute(
            text("UPDATE schedules SET last_slot = date_trunc('hour', now()) - interval '1 hour'")
        )
    more, logged = _check(ledger, capsys)
    assert (more["gaps"], logged) == (4, 1)
