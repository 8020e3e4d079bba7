"""Once: claims before the run, effects in their transaction, results of duplicates."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

import leveret
from leveret.store import engine

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
    worker.records(job, "succeeded")
    for _ in range(2):
        worker.send("work.do", {"amount": 7}, job_id=job)
    worker.settled()
    records = [r for r in worker.records(job) if r["event"] == "succeeded"]
    assert [r["result"] for r in records] == [14, 14, 14]
    assert worker.notes == [job]
    assert account() == 7
