"""A database that keeps its connections and says nothing: nobody waits for it for ever."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

import leveret
from leveret.errors import DatabaseUnavailable
from leveret.ledger.cancel import load
from leveret.store.bounded import BoundedConnection, NoAnswer
from leveret.store.connections import Connections
from tests.support.proxies import TcpProxy
from tests.support.waiting import wait_until

PATIENCE = 0.5


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Have nobody wait for 20 s."""
    monkeypatch.setattr(BoundedConnection, "answer_seconds", PATIENCE)


@pytest.fixture
def proxy(ledger_database):
    """Stand between a test and the database, which can be silenced."""
    with TcpProxy.before(ledger_database) as proxy:
        yield proxy


def test_a_statement_without_an_answer_ends_and_the_next_ones_fail_at_once(proxy, ledger_database):
    """What says so is the error of a database that is away; and it is tried again."""
    connections = Connections(proxy.through(ledger_database))
    try:
        assert connections.run("SELECT 1") == [(1,)]
        proxy.stall()
        begin = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match=r"has not answered for 0\.5 s"):
            connections.run("SELECT 2")
        assert PATIENCE <= time.monotonic() - begin < 10
        again = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            connections.run("SELECT 3")
        assert time.monotonic() - again < PATIENCE
        assert connections.away_seconds > 0
        proxy.resume()

        def answers():
            try:
                return connections.run("SELECT 4") == [(4,)]
            except DatabaseUnavailable:
                return False

        wait_until(answers, timeout=30, every=0.1, what="the database is back")
        assert connections.away_seconds == 0
    finally:
        connections.close()


def test_a_long_statement_of_a_living_server_is_not_cut_while_it_sends(ledger_database):
    """Only silence counts: rows that come for longer than that are read to the end."""
    connections = Connections(ledger_database)
    try:
        begin = time.monotonic()
        rows = connections.run(
            "SELECT pg_sleep(0.1), repeat('x', 20000) FROM generate_series(1, 8)"
        )
        assert len(rows) == 8
        assert time.monotonic() - begin > PATIENCE
    finally:
        connections.close()


def test_reading_what_is_cancelled_does_not_hang(proxy, ledger_database, monkeypatch):
    """A worker that comes back reads it before it takes jobs."""
    url = proxy.through(ledger_database)
    assert load(url) is not None
    real = BoundedConnection.connect.__func__

    def silenced(cls, *args, **options):
        connection = real(cls, *args, **options)
        proxy.stall()
        return connection

    monkeypatch.setattr(BoundedConnection, "connect", classmethod(silenced))
    with pytest.raises(NoAnswer):
        load(url)


def test_a_job_is_put_off_while_the_database_is_silent_and_runs_then(
    worker, proxy, ledger_database
):
    """Its thread is free again after the wait, and it has used no attempt."""

    @worker.actor("work.once", once=True, backoff=leveret.Backoff(base=timedelta(0)))
    def once():
        worker.notes.append(leveret.current_job().attempt)

    worker.start(threads=1, database_url=proxy.through(ledger_database))
    worker.records(worker.send("work.once"), "succeeded")
    proxy.stall()
    job = worker.send("work.once")
    worker.records(job, "snoozed")
    proxy.resume()
    worker.records(job, "succeeded")
    assert worker.notes == [1, 1]
