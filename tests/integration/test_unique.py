"""Unique jobs, through a worker and its database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import text

import leveret
from leveret.claims import register_unique
from leveret.message import job_time, new_id
from leveret.request import make_job
from leveret.store import async_engine, engine, partition
from tests.support.waiting import wait_until

SOON = leveret.Backoff(base=timedelta(seconds=0.1), jitter=False)


@pytest.fixture
def running(worker, ledger_database):
    """Return a worker whose jobs hold until its gate is open; `start()` it."""
    worker.gate = threading.Event()

    @worker.actor("work.do", backoff=SOON, max_retries=1)
    def work(what: str = "", fail: bool = False):
        worker.notes.append(leveret.current_job().id)
        assert worker.gate.wait(20)
        if fail:
            raise ConnectionError("no luck")

    worker.begin = lambda threads=2: worker.start(threads=threads, database_url=ledger_database)
    yield worker
    worker.gate.set()


@pytest.fixture
def what(request):
    """Return an argument of this test's own, so that its keys are."""
    return {"what": f"{request.node.name} {new_id()}"}


def told(worker, job, *events):
    """Wait for records of a job and return all; that it has started is told only of slow ones."""
    return [r for r in worker.records(job, *events) if r["event"] != "started"]


def fate(worker, job, event):
    """Wait for a record and return what it says."""
    records = told(worker, job, event)
    return next(r for r in records if r["event"] == event)


def test_until_started_those_published_before_are_left_out(running, what):
    """And one that is published after runs, even while the first does."""
    first, second = (running.send("work.do", what, unique_until="started") for _ in range(2))
    running.begin(threads=1)
    running.noted(1)
    third = running.send("work.do", what, unique_until="started")
    running.gate.set()
    assert fate(running, second, "cancelled")["why"] == f"duplicate of {first}"
    fate(running, third, "succeeded")
    assert running.notes == [first, third]


def test_until_done_those_published_while_it_runs_are_left_out(running, what):
    """Other arguments, and other keys, are other jobs; after its end, the next one runs."""
    running.begin()
    first = running.send("work.do", what, unique_until="done")
    running.noted(1)
    second = running.send("work.do", what, unique_until="done")
    assert fate(running, second, "cancelled")["why"] == f"duplicate of {first}"
    other = running.send("work.do", what, unique_until="done", idempotency_key=new_id())
    running.noted(2)
    running.gate.set()
    fate(running, first, "succeeded")
    fate(running, other, "succeeded")
    third = running.send("work.do", what, unique_until="done")
    fate(running, third, "succeeded")


def test_a_job_stands_for_others_while_it_waits_for_its_next_attempt(running, what):
    """And when it is dead, it stands for nobody any more."""
    running.begin()
    failing = {**what, "fail": True}
    options = {"unique_until": "done", "idempotency_key": what["what"]}
    first = running.send("work.do", failing, **options)
    running.noted(1)
    second = running.send("work.do", what, **options)
    fate(running, second, "cancelled")
    running.gate.set()
    fate(running, first, "dead")
    third = running.send("work.do", what, **options)
    fate(running, third, "succeeded")
    assert running.notes == [first, first, third]


def test_for_a_time_there_is_one_job(running, what):
    """Ten calls within a minute are one; a call two minutes ago was another."""
    running.gate.set()
    running.begin()
    long_ago = id_of(datetime.now(UTC) - timedelta(minutes=2))
    running.send("work.do", what, unique_for=60, job_id=long_ago)
    fate(running, long_ago, "succeeded")
    first = running.send("work.do", what, unique_for=timedelta(minutes=1))
    fate(running, first, "succeeded")
    for _ in range(3):
        job = running.send("work.do", what, unique_for=60)
        assert fate(running, job, "cancelled")["why"] == f"duplicate of {first}"


def test_a_duplicate_of_the_same_id_is_the_same_job(running, what):
    """A redelivery is not left out because of itself."""
    running.gate.set()
    running.begin()
    job = running.send("work.do", what, unique_for=60)
    fate(running, job, "succeeded")
    running.send("work.do", what, unique_for=60, job_id=job)
    running.noted(2)
    assert running.notes == [job, job]


def test_a_replay_runs_though_another_has_run_since(running, what):
    """Somebody wants it now."""
    running.gate.set()
    running.begin()
    old = running.send("work.do", what, unique_until="started", delay=0.1)
    new = running.send("work.do", what, unique_until="started")
    fate(running, new, "succeeded")
    fate(running, old, "cancelled")
    job = make_job("work.do", what, now=0, queue="default", job_id=old, unique_until="started")
    replay = {name: getattr(job, name) for name in ("actor", "arguments", "id", "queue")}
    running.publisher.publish_job(leveret.Job(**replay, unique_until="started", run=1)).wait()
    fate(running, old, "succeeded")


@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy", "asyncio"])
def test_the_last_of_many_replaces_those_that_were_registered_before(
    running, what, ledger_database, driver
):
    """Debounce: of three, the last runs."""
    ids = [running.send("work.do", what, on_conflict="replace") for _ in range(3)]
    jobs = [
        make_job("work.do", what, now=0, job_id=job_id, on_conflict="replace") for job_id in ids
    ]
    register(driver, ledger_database, jobs)
    running.gate.set()
    running.begin(threads=1)
    for job_id in ids[:2]:
        assert fate(running, job_id, "cancelled")["why"] == f"replaced by {ids[2]}"
    fate(running, ids[2], "succeeded")
    assert running.notes == [ids[2]]


def register(driver, url, jobs):
    """Register jobs in one transaction, in any order."""
    if driver == "psycopg":
        with psycopg.connect(url) as connection:
            for job in reversed(jobs):
                register_unique(connection, job)
        return
    if driver == "sqlalchemy":
        made = engine(url, pool_size=1)
        with made.begin() as connection:
            for job in jobs:
                register_unique(connection, job)
        made.dispose()
        return

    async def enter():
        made = async_engine(url, pool_size=1)
        async with made.begin() as connection:
            for job in jobs:
                await connection.run_sync(register_unique, job)
        await made.dispose()

    import asyncio  # noqa: PLC0415

    asyncio.run(enter())


@pytest.mark.parametrize(("state", "ends"), [("queued", "cancelled"), ("cancelled", "succeeded")])
def test_a_later_job_that_the_ledger_knows_replaces_it(running, what, ledger_database, state, ends):
    """Unless that one has ended badly."""
    job = running.send("work.do", what, on_conflict="replace", unique_for=3600)
    later = id_of(datetime.now(UTC) + timedelta(seconds=1))
    key = make_job("work.do", what, now=0, on_conflict="replace").idempotency_key
    owner = engine(ledger_database, pool_size=1)
    with owner.begin() as connection:
        partition.ensure(connection)
        connection.execute(
            text(
                "INSERT INTO jobs (id, created_at, actor, idempotency_key, state)"
                " VALUES (:id, to_timestamp(:at), 'work.do', :key, :state)"
            ),
            {"id": later, "at": job_time(later), "key": key, "state": state},
        )
    owner.dispose()
    running.gate.set()
    running.begin()
    record = fate(running, job, ends)
    if ends == "cancelled":
        assert record["why"] == f"replaced by {later}"


def test_a_job_that_is_unique_and_once_is_claimed_by_its_id(running, what, ledger_database):
    """Its key says what it is unique in; when that is over, the next one runs."""
    running.gate.set()
    running.begin()
    options = {"unique_until": "started", "once": True, "idempotency_key": what["what"]}
    for _ in range(2):
        job = running.send("work.do", what, **options)
        fate(running, job, "succeeded")
        running.send("work.do", what, job_id=job, **options)
        wait_until(
            lambda job=job: [r["event"] for r in told(running, job)] == ["succeeded"] * 2,
            timeout=20,
        )
    assert len(running.notes) == 2


def id_of(moment):
    """Make the id of a job that is published at a time."""
    milliseconds = f"{int(moment.timestamp() * 1000):012x}"
    rest = new_id()[13:]
    return f"{milliseconds[:8]}-{milliseconds[8:]}{rest}"


def test_unique_options_can_be_given_where_an_actor_is_sent(running, what, ledger_database):
    """`send_with_options` has what `publish` has."""
    running.begin()
    actor = running.broker.actors["work.do"]
    first = actor.send_with_options(kwargs=what, unique_until="done", queue="default")
    running.noted(1)
    second = actor.send_with_options(kwargs=what, unique_until="done", queue="default")
    why = fate(running, second.message_id, "cancelled")["why"]
    assert why == f"duplicate of {first.message_id}"
