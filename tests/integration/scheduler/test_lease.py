"""The lease, on a real database."""

from __future__ import annotations

import threading
from datetime import timedelta

import psycopg

from leveret.store.lease import Grant, Held, Lease
from tests.support.waiting import wait_until

TERM = timedelta(seconds=30)
BRIEF = timedelta(seconds=0.3)


def test_one_takes_it_and_the_others_see_for_how_long(runner, new_name):
    """The first epoch is 1; who has it may take it again, for an answer may have been lost."""
    name = new_name()
    mine = Lease(runner, name, holder="a", term=TERM)
    other = Lease(runner, name, holder="b", term=TERM)
    assert mine.take().epoch == 1
    held = other.take()
    assert isinstance(held, Held)
    assert held.holder == "a"
    assert 20 < held.remaining <= 30
    assert mine.take().epoch == 2


def test_of_many_who_take_it_at_once_one_has_it(ledger_database, new_name, runner):
    """The first time, and when it has expired."""
    from tests.integration.scheduler.conftest import Statements  # noqa: PLC0415

    name = new_name()
    for epoch in (1, 2):
        barrier = threading.Barrier(8)
        answers = []

        def take(number, barrier=barrier, answers=answers):
            own = Statements(ledger_database)
            barrier.wait(30)
            answers.append(Lease(own, name, holder=str(number), term=TERM).take())
            own.connection.close()

        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [a.epoch for a in answers if isinstance(a, Grant)] == [epoch]
        assert len(answers) == 8
        runner.run("UPDATE leases SET expires_at = now() WHERE name = %s", [name])


def test_an_expired_lease_is_not_renewed_and_anybody_may_take_it(runner, new_name):
    """Also when nobody has: what is over is over."""
    name = new_name()
    mine = Lease(runner, name, holder="a", term=BRIEF)
    grant = mine.take()
    assert mine.renew(grant.epoch).epoch == 1
    wait_until(lambda: peek(runner, name) < 0, timeout=30, what="the term is over")
    assert mine.renew(1) is None
    other = Lease(runner, name, holder="b", term=TERM)
    assert other.take().epoch == 2
    assert mine.renew(1) is None
    assert mine.renew(2) is None
    assert other.renew(1) is None
    assert other.renew(2).epoch == 2


def peek(runner, name) -> float:
    """Return the seconds that a lease has left."""
    return runner.run(
        "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM leases"
        " WHERE name = %s",
        [name],
    )[0][0]


def test_who_resigns_ends_the_term_and_says_so(runner, new_name, ledger_database):
    """Only its own, and only while it has it."""
    name, channel = new_name(), "resigned"
    mine = Lease(runner, name, holder="a", term=TERM)
    other = Lease(runner, name, holder="b", term=TERM)
    mine.take()
    with psycopg.connect(ledger_database, autocommit=True) as listener:
        listener.execute(f"LISTEN {channel}")
        other.resign(1, channel=channel)
        mine.resign(7, channel=channel)
        assert isinstance(other.take(), Held)
        mine.resign(1, channel=channel)
        mine.resign(1, channel=channel)
        told = list(listener.notifies(timeout=20, stop_after=1))
        assert [(each.channel, each.payload) for each in told] == [(channel, "lease")]
        assert not list(listener.notifies(timeout=0.1))
    assert other.take().epoch == 2


def test_each_answer_tells_the_databases_time(runner, new_name):
    """To whom wants to know it."""
    seen = []
    lease = Lease(
        runner,
        new_name(),
        holder="a",
        term=TERM,
        clock=lambda: 5.0,
        observe=lambda at, asked: seen.append((at, asked)),
    )
    lease.take()
    lease.renew(1)
    ((now,),) = runner.run("SELECT clock_timestamp()")
    assert [asked for _, asked in seen] == [5.0, 5.0]
    assert seen[0][0] < seen[1][0] < now
