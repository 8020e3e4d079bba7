"""The recorder, its database and its broker die; the rows are right all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leveret import names
from tests.support.recorders import Ledger, RecorderProcess, migrated
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS = 300


@pytest.fixture
def recorders(node, tmp_path) -> Iterator[Callable[..., RecorderProcess]]:
    """Return a function that starts a recorder of the node's queues for a database."""
    made: list[RecorderProcess] = []

    def start(database_url, **options):
        made.append(
            RecorderProcess(node.environment("recorder"), database_url, tmp_path, **options)
        )
        return made[-1]

    yield start
    for each in made:
        each.kill()
        print(each.log[-4000:])


@pytest.fixture
def ledger(fresh_database) -> Iterator[Ledger]:
    """Return the rows of a database of this test."""
    found = Ledger(migrated(fresh_database))
    yield found
    found.close()


def mixed_jobs(publisher, count=JOBS):
    """Have jobs run of which a third succeeds, a third at the second attempt, a third dies."""
    names_ = ("probe.run", "probe.fail_once", "probe.refuse")
    return publisher.publish_many(((names_[n % 3], {"n": n}) for n in range(count)), timeout=60)


COUNT = "SELECT count({}) FROM {} WHERE {} = ANY(%s) AND {}".format


def expect_ends(ledger, ids):
    """Wait until each job has its end, in the ledger and among the dead letters."""
    third = len(ids) // 3
    succeeded = COUNT("*", "jobs", "id", "state = 'succeeded' AND body IS NOT NULL")
    ledger.wait_value(2 * third, succeeded, ids, timeout=90)
    ledger.wait_value(third, COUNT("*", "jobs", "id", "state = 'dead' AND body IS NOT NULL"), ids)
    letters = COUNT("DISTINCT job_id", "dead_letters", "job_id", "state = 'open'")
    ledger.wait_value(third, letters, ids, timeout=90)
    assert ledger.value("SELECT count(*) FROM jobs") == len(ids)
    assert ledger.value("SELECT count(*) FROM ledger_rejects") == 0


def expect_exact(ledger, ids):
    """Wait until each job has its end, then count all that is kept of them."""
    expect_ends(ledger, ids)
    third = len(ids) // 3
    assert ledger.value(COUNT("*", "attempts", "job_id", "true"), ids) == 4 * third
    assert ledger.value(COUNT("*", "attempts", "job_id", "outcome = 'retrying'"), ids) == third
    assert ledger.value("SELECT count(*) FROM dead_letters") == third
    (group,) = ledger.rows("SELECT total, open FROM dead_letter_groups")
    assert group == {"total": third, "open": third}


@pytest.mark.parametrize("point", ["taken", "written", "committed"])
def test_a_recorder_that_is_killed_loses_and_doubles_nothing(
    node, workshop, publisher, recorders, *, ledger, fresh_database, books, tmp_path, point
):
    """Kill -9 at a point of three batches, 300 jobs of mixed outcome: every count is exact."""
    workshop.start(node.url("worker"))
    ids = mixed_jobs(publisher)
    dying = {
        "module": ("-m", "tests.support.recorder_killpoints"),
        "variables": {
            "FAULTS_KILL_AT": point,
            "FAULTS_FOLDER": str(tmp_path),
            "FAULTS_KILL_TIMES": "2",
        },
    }
    for _ in range(2):
        assert recorders(fresh_database, **dying).process.wait(60) == -9
    if point == "taken":
        assert ledger.value("SELECT count(*) FROM jobs") == 0
    last = recorders(fresh_database, **dying).wait_ready()
    expect_exact(ledger, ids)
    wait_until(lambda: books.left_in(names.LEDGER) == 0, timeout=30, what="the queue is empty")
    assert last.terminate() == 0


def test_a_database_that_is_killed_is_waited_for_and_caught_up_with(
    node, workshop, publisher, recorders, private_postgres
):
    """Jobs keep running, one line says that it is away and one that it is back, all is written."""
    server = private_postgres()
    ledger = Ledger(migrated(server.url()))
    recorder = recorders(server.url()).wait_ready()
    workshop.start(node.url("worker"))
    ids = mixed_jobs(publisher, 30)
    wait_until(lambda: ledger.value("SELECT count(*) FROM jobs") > 0, timeout=30)
    ledger.close()
    server.kill()
    ids += mixed_jobs(publisher)
    wait_until(
        lambda: sum(workshop.ends.values()) + workshop.starts.total() >= 2 * JOBS, timeout=60
    )
    wait_until(lambda: not recorder.is_ready(), timeout=30, what="it is not ready")
    assert recorder.get("/livez")[0] == 200
    assert recorder.metric("leveret_ledger_lag_seconds") > 0
    server.start()
    ledger = Ledger(server.url())
    try:
        expect_exact(ledger, ids)
    finally:
        ledger.close()
    wait_until(lambda: recorder.metric("leveret_ledger_lag_seconds") == 0, timeout=30)
    assert recorder.log.count("ledger.database_away") == 1
    assert recorder.log.count("ledger.database_back") == 1
    assert recorder.terminate() == 0


def test_a_broker_that_restarts_is_waited_for(
    broker, workshop, publisher, recorders, *, ledger, fresh_database
):
    """What was not acked comes again, and changes nothing; a job that runs again is told of."""
    recorder = recorders(fresh_database).wait_ready()
    workshop.start(broker.vhost.url("worker"))
    ids = mixed_jobs(publisher, 150)
    broker.restart()
    ids += mixed_jobs(publisher, 150)
    expect_ends(ledger, ids)
    attempts = ledger.value(COUNT("*", "attempts", "job_id", "true"), ids)
    assert 400 <= attempts <= workshop.starts.total()
    (group,) = ledger.rows("SELECT total, open FROM dead_letter_groups")
    letters = ledger.value("SELECT count(*) FROM dead_letters")
    assert group == {"total": letters, "open": letters}
    assert recorder.is_ready()
    assert recorder.terminate() == 0


def test_a_recorder_starts_before_its_database_and_leaves_when_told_to(recorders, private_postgres):
    """It waits, says so once, is alive and not ready, and SIGTERM ends the waiting."""
    server = private_postgres()
    migrated(server.url())
    server.stop()
    recorder = recorders(server.url())
    wait_until(lambda: "waiting_for_database" in recorder.log, timeout=30)
    assert recorder.get("/livez")[0] == 200
    assert recorder.get("/readyz")[0] == 503
    assert recorder.terminate() == 0
    recorder = recorders(server.url())
    wait_until(lambda: "waiting_for_database" in recorder.log, timeout=30)
    server.start()
    recorder.wait_ready()
    assert recorder.log.count("waiting_for_database") == 1
    assert recorder.log.count("database_found") == 1
    assert recorder.terminate() == 0
