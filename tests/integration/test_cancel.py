"""Cancelling jobs before they start, and running them again: a worker, a recorder, a relay."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pika
import pytest
from typer.testing import CliRunner

import leveret
from leveret import names
from leveret.cli.app import app
from leveret.control import CONTROL_TYPE, ControlSender, decode_cancel, encode_cancel
from leveret.deadletters.runner import step
from leveret.errors import JobCancelled, PublishRejected
from leveret.ledger.cancel import CancelOutcome, cancel, load
from leveret.ledger.retry import RetryOutcome, retry
from leveret.ledger.state import State
from leveret.message import new_id
from leveret.outbox import enqueue
from leveret.results import Watcher
from leveret.store import engine
from leveret.store.identity import own_time
from tests.support.proxies import TcpProxy
from tests.support.recorders import Ledger, RecorderProcess
from tests.support.relays import RelayProcess
from tests.support.waiting import wait_until
from tests.support.workshop import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def recorded(vhost, ledger_database, tmp_path_factory) -> Iterator[RecorderProcess]:
    """Run a recorder for all tests of this module."""
    folder = tmp_path_factory.mktemp("recorder")
    made = RecorderProcess(vhost.environment("recorder"), ledger_database, folder)
    try:
        yield made.wait_ready()
    finally:
        made.kill()
        assert "Traceback" not in made.log, made.log


@pytest.fixture
def ledger(recorded, ledger_database) -> Iterator[Ledger]:
    """Return the rows that the recorder writes."""
    found = Ledger(ledger_database)
    yield found
    found.close()


class Desk:
    """Where jobs are cancelled and run again, as the API and the command line do it."""

    def __init__(self, database_url: str, vhost: Any) -> None:
        self.url = database_url
        self.engine = engine(database_url, pool_size=2)
        self.sender = ControlSender(vhost.url("api"))

    def cancel(self, job_id: str, *, tell: bool = True) -> Any:
        """Cancel a job, and tell the workers."""
        with self.engine.begin() as connection:
            result = cancel(connection, job_id, by="test")
        if tell and result.is_accepted:
            self.sender.cancel(result.runs).result(30)
        return result

    def retry(self, job_id: str) -> Any:
        """Have a job run again."""
        with self.engine.begin() as connection:
            return retry(connection, job_id, by="test")

    def close(self) -> None:
        """Disconnect."""
        self.sender.close()
        self.engine.dispose()


@pytest.fixture
def desk(ledger_database, vhost) -> Iterator[Desk]:
    """Return where jobs are cancelled."""
    made = Desk(ledger_database, vhost)
    yield made
    made.close()


@pytest.fixture
def runs(worker) -> Counter[str]:
    """Declare actors that count their runs, by the job's id."""
    counted: Counter[str] = Counter()
    lock = threading.Lock()

    def count() -> Any:
        job = leveret.current_job()
        with lock:
            counted[job.id] += 1
        return job

    @worker.actor("probe.run")
    def run() -> int:
        count()
        return 1

    @worker.actor("probe.hold")
    def hold() -> None:
        count()
        assert worker.gate.wait(60)

    @worker.actor("probe.fail", backoff=QUICK, max_retries=3)
    def fail() -> None:
        count()
        raise ConnectionError("not yet")

    @worker.actor("probe.die", max_retries=0)
    def die() -> str:
        if count().run == 0:
            raise ValueError("the first run dies")
        return "well"

    worker.gate = threading.Event()
    yield counted
    worker.gate.set()


def test_what_waits_in_a_worker_is_ended_without_waiting_for_a_thread(worker, runs, ledger, desk):
    """One thread is busy; the jobs behind it are cancelled at once, and never run."""
    worker.start(threads=1, prefetch=20)
    held = worker.send("probe.hold")
    ledger.wait(held, "running")
    waiting = [worker.send("probe.run") for _ in range(3)]
    for job_id in waiting:
        ledger.wait(job_id, "queued")
    result = desk.cancel(waiting[0])
    assert (result.outcome, result.state) == (CancelOutcome.REQUESTED, State.QUEUED)
    row = ledger.wait(waiting[0], "cancelled")
    assert row["cancel_requested_at"] is not None
    assert [a["outcome"] for a in ledger.attempts(waiting[0])] == ["cancelled"]
    assert runs[held] == 1
    refused = desk.cancel(held)
    assert (refused.outcome, refused.state) == (CancelOutcome.REFUSED, State.RUNNING)
    assert "is not interrupted" in refused.detail
    worker.gate.set()
    for job_id in waiting[1:]:
        ledger.wait(job_id, "succeeded")
    assert runs[waiting[0]] == 0
    assert "it is succeeded" in desk.cancel(waiting[1]).detail
    assert desk.cancel(waiting[0]).outcome is CancelOutcome.CANCELLED
    ledger.wait_value(
        [True], "SELECT array_agg(closed_at IS NOT NULL) FROM cancellations WHERE job_id = %s",
        waiting[0],
    )  # fmt: skip


def test_a_job_is_cancelled_that_no_worker_has_yet(worker, runs, ledger, desk, ledger_database):
    """Whoever comes later reads it in the ledger, before it takes jobs."""
    cancelled, kept = worker.send("probe.run"), worker.send("probe.run")
    for job_id in (cancelled, kept):
        ledger.wait(job_id, "queued")
    desk.cancel(cancelled)
    assert cancelled in load(ledger_database)
    worker.start(database_url=ledger_database)
    ledger.wait(cancelled, "cancelled")
    ledger.wait(kept, "succeeded")
    assert runs == {kept: 1}


def test_a_worker_that_lost_its_connection_learns_what_it_missed(
    worker, runs, ledger, desk, ledger_database
):
    """The control message went by while it was away; the ledger still says so."""
    with TcpProxy.before(worker.vhost.amqp_url) as proxy:
        url = proxy.through(worker.vhost.url("worker"))
        made = leveret.worker.Worker(
            worker.broker, url, queues=["default"], threads=2, database_url=ledger_database
        )
        made.start()
        try:
            wait_until(lambda: made.is_ready, timeout=30)
            proxy.refuse()
            wait_until(lambda: not made.is_ready, timeout=30)
            job_id = worker.send("probe.run")
            ledger.wait(job_id, "queued")
            desk.cancel(job_id)
            proxy.resume()
            ledger.wait(job_id, "cancelled")
        finally:
            made.stop(10)
    assert runs[job_id] == 0


def test_what_is_due_later_is_cancelled_at_once_and_its_copy_is_dropped(worker, runs, ledger, desk):
    """The copy comes out of the wheel all the same, and ends without a run."""
    job_id = worker.send("probe.run", delay=1)
    ledger.wait(job_id, "scheduled")
    worker.start()
    with desk.engine.begin() as connection:  # as if it were due much later
        connection.exec_driver_sql(
            "UPDATE jobs SET due_at = now() + interval '1 hour' WHERE id = %s", (job_id,)
        )
    result = desk.cancel(job_id)
    assert (result.outcome, result.state) == (CancelOutcome.CANCELLED, State.CANCELLED)
    assert ledger.job(job_id)["state"] == "cancelled"
    wait_until(lambda: ledger.attempts(job_id), timeout=30, what="its copy is dropped")
    assert ledger.job(job_id)["state"] == "cancelled"
    assert runs[job_id] == 0


def test_the_copies_of_retries_are_dropped_too(worker, runs, ledger, desk):
    """A job that has failed and waits for its next attempt has not started it."""
    worker.start()
    job_id = worker.send("probe.fail")
    wait_until(lambda: runs[job_id], timeout=30)
    ledger.wait(job_id, "retrying")
    result = desk.cancel(job_id)
    if result.outcome is CancelOutcome.REFUSED:  # a slow machine: it was running again
        pytest.skip(result.detail)
    row = ledger.wait(job_id, "cancelled")
    attempts = ledger.attempts(job_id)
    assert attempts[-1]["outcome"] == "cancelled"
    assert row["attempt"] == attempts[-1]["attempt"] == runs[job_id] + 1


def test_what_waits_in_the_outbox_is_never_sent(ledger, desk):
    """Its row is deleted; the ledger keeps what would have been sent."""
    with desk.engine.begin() as connection:
        job_id = enqueue(connection, "probe.run", {"n": 1}, queue="bulk")
    result = desk.cancel(job_id, tell=False)
    assert (result.outcome, result.state) == (CancelOutcome.CANCELLED, State.CANCELLED)
    assert ledger.rows("SELECT 1 FROM leveret_outbox WHERE job_id = %s", job_id) == []
    row = ledger.job(job_id)
    assert (row["state"], row["actor"], row["queue"]) == ("cancelled", "probe.run", "bulk")
    assert bytes(row["body"]) == b'{"n":1}'

    # As the API writes it: the ledger's row, and the outbox's, in one transaction.
    with desk.engine.begin() as connection:
        known = enqueue(connection, "probe.run", {}, delay=2)
        connection.exec_driver_sql(
            "INSERT INTO jobs (id, created_at, actor, state, due_at) VALUES"
            " (%s, %s, 'probe.run', 'scheduled', now() + interval '2 seconds')",
            (known, own_time(known)),
        )
    assert desk.cancel(known, tell=False).detail == "it had not been sent yet"
    assert ledger.job(known)["state"] == "cancelled"
    assert desk.cancel(known, tell=False).detail == "it was cancelled before"

    # What a relay is just sending is not taken from under it.
    with desk.engine.begin() as connection:
        sending = enqueue(connection, "probe.run", {})
    with desk.engine.connect() as relay:
        relay.exec_driver_sql(
            "SELECT 1 FROM leveret_outbox WHERE job_id = %s FOR UPDATE", (sending,)
        )
        result = desk.cancel(sending, tell=False)
        relay.rollback()
    assert (result.outcome, result.state) == (CancelOutcome.REQUESTED, None)
    desk.cancel(sending, tell=False)


def test_what_the_ledger_does_not_know_cannot_be_cancelled(ledger, desk):
    """And it is written down who tried."""
    for unknown in (new_id(), "a\0b", "\ud800"):
        assert desk.cancel(unknown).outcome is CancelOutcome.UNKNOWN
        assert desk.retry(unknown).outcome is RetryOutcome.UNKNOWN
    tried = ledger.rows("SELECT action, outcome FROM audit_log ORDER BY id DESC LIMIT 2")
    assert {(row["action"], row["outcome"]) for row in tried} == {
        ("job.cancel", "refused"),
        ("job.retry", "refused"),
    }


def test_each_of_two_hundred_jobs_ends_once_cancelled_or_run(worker, runs, ledger, desk):
    """They are cancelled while a worker starts them: none ends as both, none as neither."""
    ids = [worker.send("probe.run") for _ in range(200)]
    ledger.wait_value(200, "SELECT count(*) FROM jobs WHERE id = ANY(%s)", ids)
    started = threading.Thread(target=lambda: worker.start(threads=2, prefetch=4))
    started.start()
    results = {job_id: desk.cancel(job_id) for job_id in reversed(ids)}
    started.join()
    ledger.wait_value(
        200, "SELECT count(*) FROM jobs WHERE id = ANY(%s) AND settled > 0", ids, timeout=60
    )
    worker.settled()
    states = {row["id"]: row["state"] for row in ledger.rows(
        "SELECT id, state FROM jobs WHERE id = ANY(%s)", ids
    )}  # fmt: skip
    assert set(states.values()) <= {"cancelled", "succeeded"}
    for job_id, state in states.items():
        assert runs[job_id] == (state == "succeeded"), (job_id, state, results[job_id])
        outcomes = [a["outcome"] for a in ledger.attempts(job_id)]
        assert outcomes == [state]
        if state == "cancelled":
            assert results[job_id].is_accepted
    assert "cancelled" in states.values()
    ledger.wait_value(
        0,
        "SELECT count(*) FROM cancellations WHERE closed_at IS NULL AND job_id = ANY(%s)",
        ids,
    )


# ------------------------------------------------------------------------------------ run it again


@pytest.fixture
def relay(vhost, ledger_database, tmp_path) -> Iterator[RelayProcess]:
    """Run a relay."""
    made = RelayProcess(vhost, ledger_database, folder=tmp_path)
    try:
        yield made.wait_ready()
    finally:
        made.kill()


@pytest.mark.usefixtures("relay")
def test_a_job_that_was_called_off_or_died_runs_again(worker, runs, ledger, desk):
    """Under its id, as its next run; what it returns is its result."""
    held = [worker.send("probe.run") for _ in range(2)]
    for job_id in held:
        ledger.wait(job_id, "queued")
        desk.cancel(job_id)
    worker.start(database_url=desk.url)
    died = worker.send("probe.die")
    for job_id, state in (*((job_id, "cancelled") for job_id in held), (died, "dead")):
        ledger.wait(job_id, state)
    ledger.wait_value(1, "SELECT count(*) FROM dead_letters WHERE job_id = %s", died)

    again = desk.retry(held[0])
    assert (again.outcome, again.state, again.run) == (RetryOutcome.QUEUED, State.CANCELLED, 0)
    replayed = desk.retry(died)
    assert replayed.outcome is RetryOutcome.REPLAYING
    assert "is about to run it again" in desk.retry(died).detail
    wait_until(lambda: step(desk.engine) > 0, timeout=60, what="the replay is done")
    with Watcher(desk.url) as watcher:
        assert watcher.result(held[0], timeout=60) == 1
        assert watcher.result(died, timeout=60) == "well"
        with pytest.raises(JobCancelled):
            watcher.result(held[1], timeout=60)
    assert (runs[held[0]], runs[held[1]], runs[died]) == (1, 0, 2)
    assert ledger.job(held[0])["run"] == 1
    assert "has succeeded" in desk.retry(died).detail
    assert "publish a new job" in desk.retry(held[0]).detail


@pytest.mark.usefixtures("relay")
def test_a_job_that_was_never_sent_is_sent_when_it_is_retried(worker, runs, ledger, desk):
    """From what the ledger kept of the outbox."""
    with desk.engine.begin() as connection:
        job_id = enqueue(connection, "probe.run", {}, queue="default", delay=3600)
        assert cancel(connection, job_id, by="test").outcome is CancelOutcome.CANCELLED
    worker.start(database_url=desk.url)
    assert desk.retry(job_id).outcome is RetryOutcome.QUEUED
    assert "has not ended" in desk.retry(job_id).detail
    assert ledger.wait(job_id, "succeeded")["run"] == 1
    assert runs[job_id] == 1


# --------------------------------------------------------------------------------- control, command


def test_a_worker_ignores_what_it_does_not_understand(worker, runs, ledger):
    """Newer processes may say more; anybody with the right may say nonsense."""
    worker.start()
    bodies = (b"\xff", b"[]", b'{"v":1,"pause":["bulk"]}', b'{"cancel":"all"}', b'{"cancel":[1]}')
    for kind in (None, "something.else", CONTROL_TYPE):
        for body in bodies:
            worker.channel.basic_publish(names.CONTROL, "", body, pika.BasicProperties(type=kind))
    job_id = worker.send("probe.run")
    ledger.wait(job_id, "succeeded")
    wait_until(lambda: worker.worker.is_ready, timeout=30, what="it consumes on")


def test_a_control_message_is_read_as_it_was_written():
    """Jobs that were replayed have their run beside them."""
    runs = {"a": 0, "b": 2}
    assert json.loads(encode_cancel(runs)) == {"v": 1, "cancel": ["a", "b"], "runs": {"b": 2}}
    assert decode_cancel(CONTROL_TYPE, encode_cancel(runs)) == runs
    assert decode_cancel(None, encode_cancel(runs)) == {}


def test_only_those_who_may_can_tell_the_workers(vhost):
    """A publisher has no business there."""
    with (
        ControlSender(vhost.url("publisher")) as sender,
        pytest.raises(PublishRejected, match=r"leveret\.control"),
    ):
        sender.cancel({"a": 0}).result(30)


def test_the_command_cancels_and_retries(vhost, ledger, worker, ledger_database):
    """One line for each job, and an exit status for scripts."""
    job_id = worker.send("probe.nobody")
    ledger.wait(job_id, "queued")

    def command(*words: str) -> tuple[int, str]:
        variables = {
            "LEVERET_AMQP_URL": vhost.url("api"),
            "LEVERET_DATABASE_URL": ledger_database,
        }
        done = CliRunner().invoke(app, ["jobs", *words], env=variables)
        return done.exit_code, done.output

    assert command("retry", job_id) == (1, f"{job_id}  refused: it has not ended: it is queued\n")
    status, said = command("cancel", job_id)
    assert status == 0
    assert said.startswith(f"{job_id}  requested: no worker starts it any more")
    status, said = command("cancel", "--json", job_id, "nobody")
    assert status == 1
    assert [line["outcome"] for line in json.loads(said)] == ["requested", "unknown"]
    who = ledger.value("SELECT who FROM audit_log WHERE target = %s LIMIT 1", job_id)
    assert who.startswith("cli:")
