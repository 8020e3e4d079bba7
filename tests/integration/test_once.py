"""Once: claims before the run, effects in their transaction, results of duplicates."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import text

import leveret
from leveret.claims.ddl import ddl
from leveret.claims.desk import Admission, Desk
from leveret.errors import ClaimLost, ConfigurationError, LeveretError
from leveret.message import Job, new_id
from leveret.outcome import Snooze
from leveret.results.store import ResultStore
from leveret.store import engine
from tests.support.waiting import wait_until

SOON = leveret.Backoff(base=timedelta(seconds=0.1), jitter=False)


@pytest.fixture(scope="module")
def accounts(ledger_database):
    """Return an engine on a database with an account."""
    made = engine(ledger_database, pool_size=2)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE account (name text PRIMARY KEY, balance int)"))
    yield made
    made.dispose()


@pytest.fixture
def account(accounts, request):
    """Return the name of an account of this test, and a function that tells its balance."""
    name = request.node.name
    with accounts.begin() as connection:
        connection.execute(text("INSERT INTO account VALUES (:name, 0)"), {"name": name})

    def balance():
        with accounts.connect() as connection:
            return connection.scalar(
                text("SELECT balance FROM account WHERE name = :name"), {"name": name}
            )

    balance.account = name
    return balance


ADD = text("UPDATE account SET balance = balance + :amount WHERE name = :name")


def told(worker, job, *events):
    """Wait for records of a job and return all; that it has started is told only of slow ones."""
    return [r for r in worker.records(job, *events) if r["event"] != "started"]


def test_a_job_that_is_published_three_times_has_its_effect_once(worker, ledger_database, account):
    """The duplicates succeed too, with the result of the one that ran."""

    @worker.actor("work.do", once=True)
    def work(amount: int) -> int:
        with leveret.once_session() as session:
            session.execute(ADD, {"amount": amount, "name": account.account})
        worker.notes.append(leveret.current_job().id)
        return amount * 2

    worker.start(database_url=ledger_database)
    job = worker.send("work.do", {"amount": 7})
    told(worker, job, "succeeded")
    for _ in range(2):
        worker.send("work.do", {"amount": 7}, job_id=job)
    worker.settled()
    records = [r for r in told(worker, job) if r["event"] == "succeeded"]
    assert [r["result"] for r in records] == [14, 14, 14]
    assert worker.notes == [job]
    assert account() == 7


def add(session, account, amount=1):
    """Add to the account of a test."""
    session.execute(ADD, {"amount": amount, "name": account.account})


def test_jobs_with_one_key_are_one_effect(worker, ledger_database, account):
    """The second job succeeds with the result of the first, and says which job that was."""

    @worker.actor("work.do")
    def work() -> str:
        with leveret.once_session() as session:
            add(session, account)
        return leveret.current_job().id

    worker.start(database_url=ledger_database)
    key = new_id()
    first = worker.send("work.do", idempotency_key=key)
    told(worker, first, "succeeded")
    second = worker.send("work.do", idempotency_key=key)
    other = worker.send("work.do", idempotency_key=new_id())
    [record] = told(worker, second, "succeeded")
    assert (record["result"], record["done_by"]) == (first, first)
    assert "started_at" not in record
    [record] = told(worker, other, "succeeded")
    assert record["result"] == other
    assert account() == 2


def test_a_failed_run_has_no_effect_and_its_retry_claims_at_once(worker, ledger_database, account):
    """The claim is released, not left to its lease."""

    @worker.actor("work.do", once=True, backoff=SOON)
    def work():
        with leveret.once_session() as session:
            add(session, account)
            if leveret.current_job().attempt == 1:
                raise ConnectionError("before the commit")

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    events = [r["event"] for r in told(worker, job, "succeeded")]
    assert events == ["retrying", "succeeded"]
    assert account() == 1


@pytest.mark.parametrize("error", [ValueError("late"), leveret.Dead("late"), leveret.Snooze(60)])
def test_what_fails_after_the_commit_has_succeeded(worker, ledger_database, account, error):
    """The effects are there, and no retry would do anything."""

    @worker.actor("work.do", once=True)
    def work():
        with leveret.once_session() as session:
            add(session, account)
        raise error

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    [record] = told(worker, job, "succeeded")
    assert record["event"] == "succeeded"
    assert account() == 1


def test_when_the_answer_to_the_commit_is_lost_the_job_has_succeeded(
    worker, ledger_database, account, monkeypatch
):
    """The release finds out that the transaction was committed, even in the last attempt."""
    commit = psycopg.Connection.commit

    def commit_and_lose_the_answer(connection):
        commit(connection)
        if connection.info.get_parameters()["application_name"] == "leveret worker (once)":
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    @worker.actor("work.do", once=True, max_retries=0)
    def work():
        monkeypatch.setattr(psycopg.Connection, "commit", commit_and_lose_the_answer)
        try:
            with leveret.once_session() as session:
                add(session, account)
        finally:
            monkeypatch.undo()

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    [record] = told(worker, job, "succeeded")
    assert record["event"] == "succeeded"
    assert account() == 1


def test_while_one_delivery_runs_another_waits_for_its_end(worker, ledger_database):
    """It is put off without using an attempt, then reports the result."""
    gate = threading.Event()

    @worker.actor("work.do", once=True)
    def work() -> str:
        worker.notes.append("started")
        assert gate.wait(20)
        return "done"

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    worker.noted(1)
    worker.send("work.do", job_id=job)
    told(worker, job, "snoozed")
    gate.set()

    def both():
        return [r for r in told(worker, job) if r["event"] == "succeeded"][1:]

    [record] = wait_until(both, timeout=20)
    assert record["result"] == "done"
    assert record["attempt"] == 1
    assert worker.notes == ["started"]


def test_a_lease_is_renewed_while_the_job_runs(worker, ledger_database):
    """So that nobody takes over what runs for longer than a lease."""
    gate = threading.Event()

    @worker.actor("work.do", once=True)
    def work():
        worker.notes.append("started")
        assert gate.wait(20)

    worker.start(database_url=ledger_database, claim_lease=timedelta(seconds=0.6))
    job = worker.send("work.do")
    worker.noted(1)

    def lease():
        with psycopg.connect(ledger_database) as connection:
            return connection.execute(
                "SELECT lease_until, clock_timestamp() FROM claims WHERE key = %s", [job]
            ).fetchone()

    first, _ = lease()
    wait_until(lambda: lease()[1] > first + timedelta(seconds=1), timeout=20)
    until, now = lease()
    assert until > first
    gate.set()
    told(worker, job, "succeeded")
    assert lease()[0] is None
    assert now < until + timedelta(seconds=20)


def test_a_replay_of_what_is_done_reports_the_stored_result(worker, ledger_database):
    """Its run has the next number, and the actor does not run."""

    @worker.actor("work.do", once=True)
    def work() -> int:
        worker.notes.append("ran")
        return 5

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    told(worker, job, "succeeded")
    worker.publisher.publish_job(
        leveret.Job(actor="work.do", id=job, queue="default", run=1, once=True)
    ).wait()

    def replayed():
        return [r for r in told(worker, job) if r.get("run") == 1]

    [record] = wait_until(replayed, timeout=20)
    assert (record["event"], record["result"]) == ("succeeded", 5)
    assert worker.notes == ["ran"]


def test_a_large_result_is_remembered_by_where_it_is(worker, ledger_database, tmp_path):
    """A duplicate refers to the same file; without a store, it says that the result is lost."""
    store = ResultStore(tmp_path.as_uri())

    @worker.actor("work.do", once=True)
    def work() -> str:
        return "x" * 100_000

    worker.start(database_url=ledger_database, results=store)
    job = worker.send("work.do")
    [first] = told(worker, job, "succeeded")
    worker.send("work.do", job_id=job)
    _, second = wait_until(lambda: len(found := told(worker, job)) == 2 and found, timeout=20)
    assert first["result_ref"] == second["result_ref"]
    assert "result" not in second


@pytest.mark.parametrize("kind", ["session", "connection"])
def test_coroutines_have_it_too(worker, ledger_database, account, kind):
    """`async with`, and two deliveries have one effect."""

    @worker.actor("work.do", once=True)
    async def work() -> str:
        once = leveret.once_session if kind == "session" else leveret.once_connection
        async with once() as session:
            await session.execute(ADD, {"amount": 3, "name": account.account})
        return kind

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    told(worker, job, "succeeded")
    worker.send("work.do", job_id=job)
    found = wait_until(lambda: len(r := told(worker, job)) == 2 and r, timeout=20)
    assert [r["result"] for r in found] == [kind, kind]
    assert account() == 3


def test_an_actor_may_commit_itself_but_only_once(worker, ledger_database, account):
    """A savepoint is no commit; what follows the commit is refused before it can do anything."""

    @worker.actor("work.do", once=True)
    def work():
        with leveret.once_session() as session:
            with session.begin_nested():
                add(session, account)
            add(session, account)
            session.commit()
            with pytest.raises(LeveretError, match="one transaction"):
                add(session, account)
        with pytest.raises(LeveretError, match="one transaction"), leveret.once_session():
            pass
        worker.notes.append("ended")

    worker.start(database_url=ledger_database)
    told(worker, worker.send("work.do"), "succeeded")
    assert worker.notes == ["ended"]
    assert account() == 2


def test_an_actor_may_try_its_transaction_again(worker, ledger_database, account):
    """As long as nothing was committed, the claim is open."""

    @worker.actor("work.do", once=True)
    def work():
        with suppress(KeyError), leveret.once_connection() as connection:
            add(connection, account, 5)
            raise KeyError
        with leveret.once_connection() as connection:
            add(connection, account)

    worker.start(database_url=ledger_database)
    told(worker, worker.send("work.do"), "succeeded")
    assert account() == 1


def test_a_run_whose_claim_was_taken_has_no_effect_and_no_outcome(worker, ledger_database, account):
    """Its commit is refused; the delivery then reports what the other run did."""

    @worker.actor("work.do", once=True)
    def work():
        job = leveret.current_job().id
        with suppress(ClaimLost), leveret.once_session() as session:
            add(session, account)
            with psycopg.connect(ledger_database) as connection:
                connection.execute(
                    "UPDATE claims SET epoch = epoch + 1, state = 'done',"
                    " job_id = 'another', result = '{\"result\": 1}' WHERE key = %s",
                    [job],
                )
        return 2  # an actor that is silent about it does not make it an outcome

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    *before, last = told(worker, job, "succeeded")
    assert [r["event"] for r in before] == ["snoozed"]
    assert (last["result"], last["done_by"]) == (1, "another")
    assert account() == 0


def take_over(database, job):
    """Have another run take over the claim of a job."""
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE claims SET epoch = epoch + 1, state = 'done', job_id = 'other' WHERE key = %s",
            [job],
        )


@pytest.mark.parametrize("form", [leveret.once_session, leveret.once_connection])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_commit_that_is_refused_ends_its_transaction_at_once(
    worker, ledger_database, account, form, is_async
):
    """Who has taken the claim over finds no lock, though the actor goes on."""
    values = {"amount": 1, "name": account.account}

    def lock_again():
        with psycopg.connect(ledger_database, options="-c lock_timeout=5s") as connection:
            connection.execute(
                "UPDATE account SET balance = balance + 10 WHERE name = %s", [account.account]
            )

    if is_async:

        @worker.actor("work.do", once=True)
        async def work():
            with suppress(ClaimLost):
                async with form() as effects:
                    await effects.execute(ADD, values)
                    take_over(ledger_database, leveret.current_job().id)
            lock_again()

    else:

        @worker.actor("work.do", once=True)
        def work():
            with suppress(ClaimLost), form() as effects:
                effects.execute(ADD, values)
                take_over(ledger_database, leveret.current_job().id)
            lock_again()

    worker.start(database_url=ledger_database)
    told(worker, worker.send("work.do"), "succeeded")
    assert account() == 10


def test_of_threads_that_claim_together_one_gets_it(ledger_database):
    """None takes over what another thread of its process has just got."""
    threads, rounds = 6, 60
    desk = Desk(f"worker-{new_id()}", database_url=ledger_database, threads=threads)
    together = threading.Barrier(threads)
    keys = [new_id() for _ in range(rounds)]

    def claim():
        found = []
        for key in keys:
            together.wait(30)
            job = Job(actor="work.do", id=new_id(), idempotency_key=key)
            found.append(desk.admit(job, None, once=True))
        return found

    try:
        with ThreadPoolExecutor(threads) as pool:
            found = [pending.result() for pending in [pool.submit(claim) for _ in range(threads)]]
    finally:
        desk.close()
    for answers in zip(*found, strict=True):
        assert Counter(type(answer) for answer in answers) == {Admission: 1, Snooze: threads - 1}


def test_effects_and_claims_may_be_in_a_database_of_the_service(
    worker, ledger_database, fresh_database
):
    """`leveret claims ddl` is all that it needs."""
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute(ddl())
        connection.execute(ddl())  # changes nothing
        connection.execute("CREATE TABLE effect (n int)")

    @worker.actor("work.do", once=True)
    def work():
        with leveret.once_session() as session:
            session.execute(text("INSERT INTO effect VALUES (1)"))

    worker.start(database_url=ledger_database, claims_url=fresh_database)
    job = worker.send("work.do")
    told(worker, job, "succeeded")
    worker.stop()
    with psycopg.connect(fresh_database) as connection:
        assert connection.execute("SELECT count(*) FROM effect").fetchone() == (1,)
        found = connection.execute("SELECT key, state, epoch, worker FROM claims").fetchall()
    assert [row[:3] for row in found] == [(job, "done", 1)]


def test_an_id_that_postgresql_has_no_letters_for_is_claimed_too(worker, ledger_database):
    """A job's id may be any string."""

    @worker.actor("work.do", once=True)
    def work() -> int:
        worker.notes.append("ran")
        leveret.current_job().checkpoint({"a": 1})
        return leveret.current_job().checkpointed["a"]

    worker.start(database_url=ledger_database)
    job = worker.send("work.do", job_id=f"a\0b{new_id()}")
    assert told(worker, job, "succeeded")[-1]["result"] == 1
    worker.send("work.do", job_id=job)
    wait_until(lambda: len(told(worker, job)) == 2, timeout=20)
    assert worker.notes == ["ran"]


def test_a_plain_job_has_no_claim_to_complete(worker, ledger_database):
    """And the database is never asked about it."""

    @worker.actor("work.do")
    def work():
        with pytest.raises(LeveretError, match="once=True"), leveret.once_session():
            pass
        worker.notes.append("ran")

    worker.start(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    told(worker, worker.send("work.do"), "succeeded")
    assert worker.notes == ["ran"]
    with pytest.raises(LeveretError, match="run of an actor"), leveret.once_session():
        pass


def test_a_worker_without_a_database_refuses_actors_that_are_once(worker):
    """With one clear line, when it starts."""

    @worker.actor("work.do", once=True)
    def work():
        """Do nothing."""

    with pytest.raises(ConfigurationError, match=r"'work\.do' is once.*LEVERET_DATABASE_URL"):
        worker.start()


@pytest.mark.parametrize("options", [{"once": True}, {"idempotency_key": "k"}, {"unique_for": 60}])
def test_a_worker_without_a_database_makes_a_dead_letter_of_a_job_that_needs_one(worker, options):
    """It is kept, with its reason, to be replayed."""

    @worker.actor("work.do")
    def work():
        worker.notes.append("ran")

    worker.start()
    job = worker.send("work.do", **options)
    [letter] = worker.letters()
    assert letter.properties.message_id == job
    assert letter.reason == "no-database"
    assert "LEVERET_DATABASE_URL" in letter.headers["x-leveret-error"]
    assert worker.notes == []


def test_tables_that_are_missing_put_the_job_off_until_they_are_there(worker, fresh_database):
    """Nothing is lost to a deployment in the wrong order."""

    @worker.actor("work.do", once=True)
    def work():
        worker.notes.append(leveret.current_job().attempt)

    worker.start(database_url=fresh_database)
    job = worker.send("work.do")
    [record] = told(worker, job, "snoozed")
    assert "leveret migrate" in record["why"]
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute(ddl())
    told(worker, job, "succeeded")
    assert worker.notes == [1]
