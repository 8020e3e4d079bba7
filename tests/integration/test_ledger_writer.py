"""Writing batches: the merge in the database folds like the one in Python."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pika
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sqlalchemy_event

from leveret import names, store
from leveret.ledger.batch import Batch
from leveret.ledger.event import Message
from leveret.ledger.writer import Writer
from leveret.message import new_id
from tests.support.recorders import Ledger, migrated
from tests.support.stories import stories, tap, told


@pytest.fixture(scope="module")
def engine(database):
    """Return an engine for a database with the schema."""
    made = store.engine(migrated(database), pool_size=8)
    yield made
    made.dispose()


@pytest.fixture
def ledger(engine, database):
    """Return the rows."""
    found = Ledger(database)
    yield found
    found.close()


def batch_of(events):
    """Make a batch of events."""
    batch = Batch()
    for event in events:
        batch.add_event(event)
    return batch


_LEFT_OUT = ("id", "job_id", "created_at", "updated_at", "stored_at", "properties", "headers")


def rows_of(ledger, job_id):
    """Return what is kept of a job, without what differs by its nature."""
    found = [ledger.job(job_id), *ledger.attempts(job_id)]
    return [{name: value for name, value in row.items() if name not in _LEFT_OUT} for row in found]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(stories(), min_size=1, max_size=4))
def test_any_way_of_telling_leads_to_the_same_rows(engine, ledger, drawn):
    """Order, repetition and batches do not show in the rows."""
    writer = Writer(engine)
    straight = [new_id() for _ in drawn]
    devious = [new_id() for _ in drawn]
    writer.write(
        batch_of(
            event(job_id)
            for (story, _), job_id in zip(drawn, straight, strict=True)
            for event in story
        )
    )
    for number in range(max(len(batches) for _, batches in drawn)):
        batch = batch_of(
            event(job_id)
            for (_, batches), job_id in zip(drawn, devious, strict=True)
            if number < len(batches)
            for event in batches[number]
        )
        writer.write(batch)
        if number == 0:
            writer.write(batch, again=True)
    for one, other in zip(straight, devious, strict=True):
        assert rows_of(ledger, other) == rows_of(ledger, one)


def test_hostile_texts_are_kept(engine, ledger):
    """Whatever a text has in it, it is stored, or what PostgreSQL cannot hold is replaced."""
    job_id = "tab\tnew\nline\\N back\\slash \x01 \ud800 nul\0 é\u2028'\""
    event = told(new_id(), "dead", 0, 1, 1)
    nasty = "a\tb\nc\\.\r\\N\0\ud800"
    body = b'{"v":1,"worker":"w\\t1","records":[{"event":"succeeded","id":"%s","ended_at":1.5,' % (
        new_id().encode()
    )
    batch = batch_of(
        [event._replace(standing=event.standing._replace(error=nasty, worker="w\t\\"))]
    )
    batch.add(
        Message(
            names.LEDGER,
            names.JOBS,
            "default.work.do",
            pika.BasicProperties(
                message_id=job_id.replace("\ud800", ""),
                type="t\ty",
                correlation_id=b"\xff\x00",
                headers={"a": "\t\\\0", "when": datetime(2026, 1, 1, tzinfo=UTC), "f": 1.5},
            ),
            bytes(range(256)),
            redelivered=False,
        ),
        1.0,
    )
    batch.add(
        Message(
            names.LEDGER,
            names.OUTCOMES,
            "records",
            pika.BasicProperties(type="leveret.records"),
            body + b'"result":"\\u0000\\ud800"}]}',
            redelivered=False,
        ),
        1.0,
    )
    assert not batch.rejects
    Writer(engine).write(batch)
    row = ledger.job(event.id)
    assert row["error"] == "a\tb\nc\\.\r\\N\N{REPLACEMENT CHARACTER}\\ud800".replace(
        "\\ud800", "ud800"
    )
    (foreign,) = ledger.rows("SELECT * FROM jobs WHERE actor = %s", "t\ty")
    assert foreign["id"].startswith("tab\tnew\nline\\N back\\slash")
    assert bytes(foreign["body"]) == bytes(range(256))
    assert foreign["correlation_id"].startswith("\\xff")


def test_several_writers_do_not_stand_in_each_others_way(engine, ledger):
    """Four writers with the same jobs, in different orders, all finish, and the rows are right."""
    ids = [new_id() for _ in range(200)] + [f"foreign-{n}" for n in range(50)]
    stages = [
        [tap(i) for i in ids],
        [told(i, "started", 0, 1, 1) for i in reversed(ids)],
        [told(i, "retrying", 0, 1, 1) for i in ids],
        [told(i, "succeeded", 0, 2, 3) for i in reversed(ids)],
    ]
    failures = []

    def write(events):
        writer = Writer(engine)
        try:
            for begin in range(0, len(events), 50):
                writer.write(batch_of(events[begin : begin + 50]))
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert ledger.value(
        "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND state = 'succeeded' AND body IS NOT NULL",
        ids,
    ) == len(ids)
    assert ledger.value("SELECT count(*) FROM attempts WHERE job_id = ANY(%s)", ids) == 2 * len(ids)


def test_a_day_without_a_partition_is_found_out(engine, ledger):
    """When retention drops a partition that a writer knew, its jobs are filed under today."""
    writer = Writer(engine)
    today = tap(new_id())
    writer.write(batch_of([today]))
    (day,) = ledger.rows("SELECT to_char(now() + interval '7 days', 'YYYYMMDD') AS name")
    for table in ("jobs", "attempts"):
        ledger.run(f"DROP TABLE {table}_p{day['name']}")
    seconds = ledger.value("SELECT extract(epoch FROM now() + interval '7 days')::bigint")
    made = f"{seconds * 1000:012x}"
    job_id = f"{made[:8]}-{made[8:]}-7000-8000-000000000001"
    writer.write(batch_of([tap(job_id), told(job_id, "succeeded", 0, 1, 1)]))
    assert ledger.job(job_id)["state"] == "succeeded"


def test_it_works_where_each_transaction_has_another_connection(engine, ledger):
    """Nothing is kept on a connection from one transaction to the next."""
    opened = []
    sqlalchemy_event.listen(engine, "connect", lambda *_: opened.append(1))
    writer = Writer(engine)
    job_id = new_id()
    for event in (tap(job_id), told(job_id, "succeeded", 0, 1, 1)):
        engine.dispose()
        writer.write(batch_of([event]))
    assert len(opened) >= 2
    assert ledger.job(job_id)["state"] == "succeeded"


def test_a_message_that_cannot_be_read_is_set_aside_whatever_its_key(engine, ledger):
    """Its key and the reason are kept as far as a text can be, its bytes as they are."""
    batch = Batch()
    batch.add(
        Message(
            names.LEDGER,
            names.OUTCOMES,
            "a\0b\ud800",
            pika.BasicProperties(type="leveret.records"),
            b"\0\xff",
            redelivered=False,
        ),
        1.0,
    )
    Writer(engine).write(batch)
    (row,) = ledger.rows("SELECT * FROM ledger_rejects WHERE body = %s", b"\0\xff")
    assert row["routing_key"] == "a\N{REPLACEMENT CHARACTER}b\\ud800"
    assert "not JSON" in row["error"]
