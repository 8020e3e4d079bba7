"""Once, while everything that takes part in it is killed."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter

import psycopg
import pytest

from leveret.message import new_id
from leveret.store import engine
from leveret.store.migrate import upgrade
from tests.support import oncejobs
from tests.support.waiting import wait_until

LEASE = 2.0
ACTORS = ("tests.support.oncejobs", "tests.support.faultjobs")


@pytest.fixture
def postgres(private_postgres):
    """Return a PostgreSQL of this test, with Leveret's tables and the accounts."""
    server = private_postgres()
    owner = engine(server.url(), pool_size=1)
    upgrade(owner)
    owner.dispose()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(oncejobs.TABLES)
        connection.execute("INSERT INTO account SELECT generate_series(0, 9)")
    return server


@pytest.fixture
def once_pool(pool, postgres):
    """Return a function that starts a pool for jobs that are once."""

    def start(lease=LEASE, **options):
        variables = {
            "LEVERET_DATABASE_URL": postgres.url(),
            "LEVERET_CLAIM_LEASE": str(lease),
        }
        settings = {"actors": ("tests.support.oncejobs",), "prefetch": 20, **options}
        return pool(variables=variables, **settings)

    return start


def query(postgres, statement):
    """Return the rows of a statement."""
    with psycopg.connect(postgres.url()) as connection:
        return connection.execute(statement).fetchall()


def waiting(node):
    """Count what is in the work queue and in the delay wheel, as far as the broker tells."""
    try:
        queues = node.management.queues(node.name)
    except Exception:  # noqa: BLE001 - the node is away
        return -1
    return sum(
        queue.get("messages", 0)
        for queue in queues
        if queue["name"] == "leveret.default" or queue["name"].startswith("leveret.delay.")
    )


def test_balances_are_exact_though_workers_broker_and_database_are_killed(
    broker, publisher, books, once_pool, postgres
):
    """200 jobs, each delivered up to five times: every effect is there, and there once."""
    dice = random.Random(7)
    workers = once_pool(threads=4, processes=2)
    journal = workers.journal
    jobs, published = {}, []
    for n in range(200):
        by_key = n % 2 == 1
        jobs[n] = new_id()
        published += [
            (n, new_id() if by_key else jobs[n], by_key) for _ in range(dice.randint(1, 5))
        ]
    dice.shuffle(published)

    def publish():
        receipts = [
            publisher.publish(
                "once.add_async" if by_key else "once.add",
                {"n": n},
                queue="default",
                job_id=job_id,
                idempotency_key=f"order-{n}" if by_key else None,
            )
            for n, job_id, by_key in published
        ]
        for receipt in receipts:
            receipt.wait()

    def started(count):
        wait_until(lambda: journal.starts().total() >= count, timeout=60, what=f"{count} starts")

    publishing = threading.Thread(target=publish)
    publishing.start()
    started(20)
    os.kill(workers.children()[0], signal.SIGKILL)
    started(50)
    postgres.kill()
    postgres.start()
    started(90)
    broker.kill()
    os.kill(workers.children()[0], signal.SIGKILL)
    broker.start()
    started(130)
    postgres.kill()
    os.kill(workers.children()[-1], signal.SIGKILL)
    postgres.start()
    publishing.join(60)
    assert not publishing.is_alive()
    ids = [job_id for _, job_id, _ in published]
    books.wait_settled(ids, timeout=60)
    wait_until(lambda: waiting(broker.vhost) == 0, timeout=60, what="all duplicates have ended")
    books.read()
    assert journal.started_again(), "nothing was hit"
    assert _ends(books, ids) == {"succeeded"}
    effects = Counter(n for (n,) in query(postgres, "SELECT n FROM effect"))
    assert effects == Counter(range(200))
    balances = dict(query(postgres, "SELECT name, balance FROM account"))
    assert balances == {name: sum(n for n in range(200) if n % 10 == name) for name in range(10)}
    states = query(postgres, "SELECT state, count(*) FROM claims GROUP BY state")
    assert states == [("done", 200)]


def _ends(books, ids):
    ends = {"succeeded", "dead", "expired", "cancelled"}
    return {record["event"] for job_id in ids for record in books.records[job_id]} & ends


def test_a_worker_that_slept_beyond_its_lease_cannot_commit(
    publisher, books, once_pool, postgres, journal
):
    """Another has taken over meanwhile; the sleeper's effects are rolled back, and it says so."""
    sleeper = once_pool(threads=1, prefetch=1)
    job = publisher.send("once.sleep", {"n": 1}, queue="default")
    wait_until(lambda: journal.entries("hold"), timeout=20, what="the job is at the gate")
    [child] = sleeper.children()
    os.kill(child, signal.SIGSTOP)
    try:
        once_pool(threads=1, prefetch=1)
        publisher.send("once.sleep", {"n": 1}, queue="default", job_id=job)
        books.wait_settled([job])
        assert query(postgres, "SELECT n, job_id FROM effect") == [(1, job)]
        assert query(postgres, "SELECT state, epoch FROM claims") == [("done", 2)]
        journal.open_gate("gate")
    finally:
        os.kill(child, signal.SIGCONT)
    wait_until(lambda: journal.entries("woken"), timeout=20, what="the sleeper goes on")

    def both_succeeded():
        books.read()
        return books.outcomes([job])["succeeded"] == 2

    wait_until(both_succeeded, timeout=30, what="both deliveries have succeeded")
    assert [r.get("result") for r in books.records[job] if r["event"] == "succeeded"] == [1, 1]
    assert "taken over by another run" in sleeper.log
    assert query(postgres, "SELECT n, job_id FROM effect") == [(1, job)]
    assert query(postgres, "SELECT state, epoch FROM claims") == [("done", 2)]
    assert len(journal.entries("end")) == 1


def test_a_claim_is_taken_over_when_the_lease_of_a_killed_worker_is_over(
    publisher, books, once_pool, postgres, journal
):
    """The next delivery waits for that, and runs with the next epoch, as the same attempt."""
    workers = once_pool(threads=1, lease=6.0)  # longer than a new process takes to begin
    job = publisher.send("once.sleep", {"n": 2}, queue="default")
    wait_until(lambda: journal.entries("hold"), timeout=20, what="the job is at the gate")
    os.kill(workers.children()[0], signal.SIGKILL)
    books.wait_settled([job])
    assert query(postgres, "SELECT n, job_id FROM effect") == [(2, job)]
    assert query(postgres, "SELECT state, epoch FROM claims") == [("done", 2)]
    assert set(books.fates([job])) == {"snoozed", "succeeded"}
    starts = journal.starts_by_attempt()
    assert {key: count for key, count in starts.items() if key[0] == job} == {(job, 1): 2}


def test_without_its_database_a_job_that_is_once_is_put_off_and_others_run(
    publisher, books, once_pool, postgres, journal
):
    """No attempt is used, one line tells, and it runs when the database is back."""
    workers = once_pool(threads=2, actors=ACTORS)
    first = publisher.send("once.add", {"n": 1}, queue="default")
    books.wait_settled([first])
    postgres.kill()
    put_off = publisher.publish_many((("once.add", {"n": n}) for n in (2, 4)), queue="default")

    def snoozed():
        books.read()
        return books.outcomes(put_off)["snoozed"] >= 4

    wait_until(snoozed, timeout=30, what="both jobs have been put off")
    plain = publisher.send("probe.run", queue="default")
    books.wait_settled([plain])
    assert not books.outcomes(put_off)["retrying"]
    postgres.start()
    books.wait_settled(put_off)
    assert {r["attempt"] for job in put_off for r in books.records[job]} == {1}
    assert sorted(query(postgres, "SELECT n FROM effect")) == [(1,), (2,), (4,)]
    assert workers.log.count("the database cannot be used") == 1
    assert workers.log.count("the database is back") == 1
