"""The recorder: from the broker's queues to rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pika
import psycopg
import pytest

import leveret
from leveret import names, store
from leveret.amqp import IOThread
from leveret.message import new_id
from services.recorder.intake import Intake
from services.recorder.recorder import Recorder
from tests.support.processes import ROOT
from tests.support.recorders import Ledger, RecorderProcess, migrated
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def ledger_url(database: str) -> str:
    """Return the URL of a database with the schema."""
    return migrated(database)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """Return the rows."""
    found = Ledger(ledger_url)
    yield found
    found.close()


@pytest.fixture
def start(worker, vhost, ledger_url, tmp_path) -> Iterator[Callable[[], RecorderProcess]]:
    """Return a function that starts a recorder, which then must end well."""
    made: list[RecorderProcess] = []

    def begin() -> RecorderProcess:
        made.append(RecorderProcess(vhost.environment("recorder"), ledger_url, tmp_path))
        return made[-1].wait_ready()

    yield begin
    try:
        for each in made:
            assert each.terminate() == 0, each.log
            assert "Traceback" not in each.log
    finally:
        for each in made:
            each.kill()
            print(each.log)


@pytest.fixture
def recorder(start) -> RecorderProcess:
    """Return a recorder that is ready."""
    return start()


@pytest.fixture
def another(start) -> RecorderProcess:
    """Return another recorder that is ready."""
    return start()


def test_a_job_that_succeeds_is_a_row_with_all_that_was_published(worker, recorder, ledger):
    """What was published, and what became of it, stand in one row."""

    @worker.actor("work.do")
    def work(n):
        return {"n": n}

    worker.start()
    job_id = worker.send("work.do", {"n": 1}, correlation_id="order-7", priority=3)
    row = ledger.wait(job_id, "succeeded")
    assert (row["actor"], row["queue"], row["routing_key"]) == (
        "work.do",
        "default",
        "default.work.do",
    )
    assert bytes(row["body"]) == b'{"n":1}'
    assert (row["correlation_id"], row["priority"], row["attempt"], row["run"]) == (
        "order-7",
        3,
        1,
        0,
    )
    assert bytes(row["result"]) == b'{"n":1}'
    assert row["created_at"] == row["published_at"]
    assert row["published_at"] <= row["started_at"] <= row["finished_at"]
    assert row["worker"] == worker.worker.id
    (attempt,) = ledger.attempts(job_id)
    assert (attempt["outcome"], attempt["started_at"]) == ("succeeded", row["started_at"])


def outcomes(ledger, job_id):
    """Return the outcome of each attempt of a job."""
    return [row["outcome"] for row in ledger.attempts(job_id)]


def test_every_outcome_has_its_state_and_its_attempts(worker, recorder, ledger):
    """Retried, snoozed, expired, refused, exhausted: each is told as it was."""
    quick = leveret.Backoff(base=timedelta(seconds=0.1), jitter=False)

    @worker.actor("work.do", backoff=quick, max_retries=1)
    def work(how, times=1):
        if leveret.current_job().attempt > times:
            return
        if how == "retry":
            raise ConnectionError("the first attempt fails")
        if how == "snooze" and how not in worker.notes:
            worker.notes.append(how)
            raise leveret.Snooze(0.1)
        if how == "refuse":
            raise leveret.Dead("no retry can help")

    worker.start()
    past = datetime.now(UTC) - timedelta(seconds=1)
    ids = {
        "retry": worker.send("work.do", {"how": "retry"}),
        "snooze": worker.send("work.do", {"how": "snooze"}),
        "refuse": worker.send("work.do", {"how": "refuse"}),
        "exhausted": worker.send("work.do", {"how": "retry", "times": 9}),
        "expired": worker.send("work.do", {"how": "run"}, expires=past),
        "unknown": worker.send("no.body", {}),
        "arguments": worker.send("work.do", {"hows": 1}),
    }
    ledger.wait(ids["retry"], "succeeded")
    assert outcomes(ledger, ids["retry"]) == ["retrying", "succeeded"]
    ledger.wait(ids["snooze"], "succeeded")
    assert outcomes(ledger, ids["snooze"]) == ["snoozed", "succeeded"]
    assert ledger.wait(ids["expired"], "expired")["reason"] == "expired"
    for name, reason in (
        ("refuse", "refused"),
        ("exhausted", "exhausted"),
        ("unknown", "unknown-actor"),
        ("arguments", "bad-arguments"),
    ):
        row = ledger.wait(ids[name], "dead")
        ledger.wait_value(1, "SELECT count(*) FROM dead_letters WHERE job_id = %s", ids[name])
        (letter,) = ledger.rows("SELECT * FROM dead_letters WHERE job_id = %s", ids[name])
        assert (row["reason"], letter["reason"], letter["state"]) == (reason, reason, "open")
        assert letter["queue"] == "default"
        (group,) = ledger.rows(
            "SELECT * FROM dead_letter_groups WHERE fingerprint = %s", letter["fingerprint"]
        )
        assert (group["total"], group["open"], group["actor"]) == (1, 1, row["actor"])
    row = ledger.job(ids["exhausted"])
    assert (row["error_type"], row["error"]) == (
        "builtins.ConnectionError",
        "the first attempt fails",
    )
    (letter,) = ledger.rows("SELECT * FROM dead_letters WHERE job_id = %s", ids["exhausted"])
    assert (letter["attempt"], bytes(letter["body"])) == (2, b'{"how":"retry","times":9}')
    assert "in test_every_outcome" in letter["traceback"]
    assert outcomes(ledger, ids["exhausted"]) == ["retrying", "dead"]
    original = pika.BasicProperties().decode(bytes(letter["properties"]))
    assert original.message_id == ids["exhausted"]
    assert "x-leveret-reason" not in original.headers


def test_a_delayed_job_is_scheduled_until_it_runs(worker, recorder, ledger):
    """When it is due is known from the start."""
    worker.actor("work.do")(lambda: None)
    worker.start()
    due_at = datetime.now(UTC) + timedelta(seconds=2)
    job_id = worker.send("work.do", at=due_at)
    row = ledger.wait(job_id, "scheduled")
    assert abs(row["due_at"] - due_at) < timedelta(milliseconds=2)
    assert ledger.wait(job_id, "succeeded")["started_at"] >= row["due_at"]


def test_what_nobody_can_read_or_route_is_kept_with_its_bytes(worker, recorder, ledger):
    """Malformed records, unroutable messages, messages that name no job, the broker's letters."""
    worker.start()
    worker.raw(b"\xff garbage", exchange=names.OUTCOMES, key="records", role="owner", type="odd")
    worker.raw(
        b"lost", exchange=names.JOBS, key="nowhere.work.do", role="owner", message_id="lost-1"
    )
    worker.raw(b"\xff", key="default.work.do")
    ledger.wait_value(1, "SELECT count(*) FROM ledger_rejects WHERE body = %s", b"\xff garbage")
    assert ledger.wait("lost-1", "dead")["reason"] == "unroutable"
    (letter,) = ledger.rows("SELECT * FROM dead_letters WHERE job_id = 'lost-1'")
    assert (letter["routing_key"], bytes(letter["body"])) == ("nowhere.work.do", b"lost")
    ledger.wait_value(1, "SELECT count(*) FROM dead_letters WHERE body = %s", b"\xff")
    (letter,) = ledger.rows("SELECT * FROM dead_letters WHERE body = %s", b"\xff")
    assert (letter["job_id"], letter["reason"]) == (None, "not-utf8")
    worker.stop()
    worker.raw(b"{}", key="default.work.do", type="work.do", message_id="native-1")
    wait_until(lambda: worker.ready("leveret.default") == 1)
    method, _, _ = worker.channel.basic_get("leveret.default")
    worker.channel.basic_nack(method.delivery_tag, requeue=False)
    row = ledger.wait("native-1", "dead")
    assert (row["reason"], row["actor"], row["queue"]) == ("rejected", "work.do", "default")
    (letter,) = ledger.rows("SELECT * FROM dead_letters WHERE job_id = 'native-1'")
    assert (letter["queue"], letter["routing_key"]) == ("default", "default.work.do")


def test_a_success_makes_open_dead_letters_superfluous(worker, recorder, ledger):
    """Whichever comes first, the letter or the success; a later death is another matter."""

    @worker.actor("work.do")
    def work(die=False):
        if die:
            raise leveret.Dead("as asked")

    worker.start()

    def publish(body, run):
        worker.raw(body, type="work.do", message_id=job_id, headers={"x-leveret-run": run})

    def letters():
        return [
            (row["run"], row["state"])
            for row in ledger.rows(
                "SELECT * FROM dead_letters WHERE job_id = %s ORDER BY id", job_id
            )
        ]

    job_id = new_id()
    publish(b'{"die": true}', 0)
    ledger.wait(job_id, "dead")
    wait_until(lambda: letters() == [(0, "open")], timeout=30)
    publish(b"{}", 1)
    assert ledger.wait(job_id, "succeeded")["run"] == 1
    wait_until(lambda: letters() == [(0, "superseded")], timeout=30)
    publish(b'{"die": true}', 1)
    wait_until(lambda: letters() == [(0, "superseded"), (1, "superseded")], timeout=30)
    assert ledger.job(job_id)["state"] == "succeeded"
    publish(b'{"die": true}', 2)
    assert ledger.wait(job_id, "dead")["run"] == 2
    wait_until(lambda: letters()[2:] == [(2, "open")], timeout=30)
    (group,) = ledger.rows(
        "SELECT * FROM dead_letter_groups WHERE fingerprint IN"
        " (SELECT fingerprint FROM dead_letters WHERE job_id = %s)",
        job_id,
    )
    assert (group["total"], group["open"], group["superseded"], group["died_again"]) == (3, 1, 2, 2)


def test_two_recorders_share_the_work(worker, recorder, another, ledger):
    """Whoever gets the parts of a job's story, the rows are right."""

    @worker.actor("work.do", max_retries=0)
    def work(n):
        if n % 5 == 0:
            raise ValueError(f"not {n}")

    worker.start()
    receipts = [worker.publisher.publish("work.do", {"n": n}, queue="default") for n in range(500)]
    ids = [receipt.job_id for receipt in receipts]
    query = "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND state = %s AND body IS NOT NULL"
    ledger.wait_value(400, query, ids, "succeeded")
    ledger.wait_value(100, query, ids, "dead")
    ledger.wait_value(100, "SELECT count(*) FROM dead_letters WHERE job_id = ANY(%s)", ids)
    assert ledger.value("SELECT count(*) FROM attempts WHERE job_id = ANY(%s)", ids) == 500
    (group,) = ledger.rows(
        "SELECT * FROM dead_letter_groups WHERE error_type = 'builtins.ValueError'"
    )
    assert (group["total"], group["open"]) == (100, 100)
    sample = "leveret_ledger_events_total"
    parts = [each.metric(sample, kind="published") for each in (recorder, another)]
    assert sum(parts) >= 500
    assert min(parts) > 0


def test_who_watches_a_job_is_notified(worker, recorder, ledger, ledger_url):
    """A change of a watched job is told on the channel, with its id."""
    worker.actor("work.do")(lambda: None)
    worker.start()
    job_id, other = new_id(), new_id()
    with psycopg.connect(ledger_url, autocommit=True) as connection:
        connection.execute("LISTEN leveret_jobs")
        ledger.run("INSERT INTO watches VALUES (%s, 'me', now() + interval '1 minute')", job_id)
        for each in (other, job_id):
            worker.raw(b"{}", type="work.do", message_id=each)
        ledger.wait(other, "succeeded")
        told = next(connection.notifies(timeout=30))
        assert told.payload == job_id


def records(rig, worker_id, *told):
    """Publish records as a worker does."""
    body = json.dumps({"v": 1, "worker": worker_id, "records": told}).encode()
    rig.raw(body, exchange=names.OUTCOMES, key="records", role="owner", type="leveret.records")


def beat(running):
    """Make a heartbeat that names running jobs."""
    return {
        "event": "heartbeat", "queues": ["default"], "threads": 2, "running": running,
        "at": time.time(),
    }  # fmt: skip


@pytest.fixture
def impatient(worker, vhost, ledger_url):
    """Return a recorder in this process that believes a worker to be gone after 1.5 s."""
    engine = store.engine(ledger_url)
    made = Recorder(
        vhost.url("recorder"),
        engine,
        queues=["default"],
        name="impatient",
        silence=timedelta(seconds=1.5),
    )
    thread = threading.Thread(target=made.run)
    thread.start()
    wait_until(lambda: made.is_ready, timeout=20, what="the recorder is ready")
    yield made
    made.stop()
    thread.join(20)
    engine.dispose()
    assert not thread.is_alive()


def test_runs_that_nobody_runs_are_abandoned_and_outcomes_count_all_the_same(
    worker, impatient, ledger
):
    """Of a worker that is silent, of one that nobody knows, and those that their worker denies."""
    gone, unknown, denied, kept = (new_id() for _ in range(4))

    def start(job_id):
        return {
            "event": "started", "id": job_id, "actor": "work.do", "queue": "default",
            "attempt": 1, "started_at": time.time() - 1,
        }  # fmt: skip

    records(worker, "w-gone", beat([gone]), start(gone))
    records(worker, "w-alive", start(denied), start(kept))
    records(worker, "w-unknown", start(unknown))
    ledger.wait(gone, "running")
    begin = start(gone)["started_at"]

    def all_are(state, *ids):
        records(worker, "w-alive", beat([kept]))
        return all(ledger.job(job_id)["state"] == state for job_id in ids)

    wait_until(
        lambda: all_are("queued", gone, unknown, denied),
        timeout=60,
        every=0.3,
        what="the runs are abandoned",
    )
    assert ledger.job(kept)["state"] == "running"
    reasons = {job_id: ledger.attempts(job_id)[0]["reason"] for job_id in (gone, unknown, denied)}
    assert reasons == {gone: "worker-gone", unknown: "worker-gone", denied: "not-running"}
    assert outcomes(ledger, gone) == ["abandoned"]
    assert ledger.value("SELECT gone_at IS NOT NULL FROM workers WHERE id = 'w-gone'")
    started_at = ledger.attempts(gone)[0]["started_at"].timestamp()
    assert abs(started_at - begin) < 60
    records(
        worker,
        "w-gone",
        beat([]),
        {
            "event": "succeeded", "id": gone, "attempt": 1, "started_at": started_at,
            "ended_at": started_at + 1,
        },
    )  # fmt: skip
    ledger.wait(gone, "succeeded")
    assert outcomes(ledger, gone) == ["succeeded"]
    assert ledger.value("SELECT gone_at IS NULL FROM workers WHERE id = 'w-gone'")


def test_a_flood_of_large_messages_is_taken_in_smaller_portions(worker, vhost):
    """What would fill the memory goes back to the queue, and comes a few at a time; then more."""
    for n in range(60):
        worker.raw(b"x" * 20_000, message_id=f"large-{n}")
    io = IOThread("leveret-io-test")
    intake = Intake(
        io,
        vhost.url("recorder"),
        name="flooded",
        queues=[names.LEDGER],
        on_count=lambda _queue, _messages: None,
        prefetch=100,
        max_bytes=200_000,
        grow_seconds=0.1,
    )
    intake.open()
    try:
        seen = set()

        def take():
            arrivals = intake.take(most=5, most_bytes=100_000, timeout=0.1)
            assert sum(len(a.message.body) for a in arrivals) <= 120_000
            seen.update(a.message.properties.message_id for a in arrivals)
            intake.ack(arrivals)
            return seen

        def take_all():
            return {f"large-{n}" for n in range(60)} <= take()

        wait_until(lambda: intake.prefetch < 100, what="it has been too much")
        wait_until(take_all, timeout=60, what="all 60 have come")
        wait_until(lambda: worker.ready(names.LEDGER) == 0, what="the queue is empty")
        wait_until(lambda: intake.prefetch == 100, what="it takes as much as before")
        worker.raw(b"small", message_id="small")
        wait_until(lambda: "small" in take(), what="it consumes still")
    finally:
        intake.close()
        io.stop()


def test_a_recorder_that_is_misconfigured_says_so_in_one_line(vhost, fresh_database):
    """The exit status is 2."""
    for variables, wrong in (
        ({"LEVERET_DATABASE_URL": ""}, "LEVERET_DATABASE_URL is not set"),
        ({"LEVERET_DATABASE_URL": "mysql://h/d"}, "LEVERET_DATABASE_URL must look like"),
        ({"LEVERET_AMQP_URL": ""}, "LEVERET_AMQP_URL is not set"),
        ({}, "run `leveret migrate`"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "services.recorder"],
            cwd=ROOT,
            env={
                **os.environ,
                **vhost.environment("recorder"),
                "LEVERET_DATABASE_URL": fresh_database,
                "LEVERET_LOG_LEVEL": "error",
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert wrong in line
