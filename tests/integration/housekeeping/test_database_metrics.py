"""What schedulers show of the database, and of jobs that are overdue."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from leveret import metrics
from leveret.housekeeping import exporter as module
from leveret.housekeeping.exporter import FRESH_SECONDS, Exporter
from leveret.store import engine
from scheduler.observer import Observer
from tests.support.proxies import TcpProxy
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from sqlalchemy import Engine

SERVER = (
    metrics.DATABASE_SIZE,
    metrics.DATABASE_CONNECTIONS,
    metrics.DATABASE_CONNECTIONS_LIMIT,
    metrics.DATABASE_OLDEST_TRANSACTION,
)
JOBS = (metrics.JOBS_OVERDUE, metrics.JOBS_OVERDUE_OLDEST)
_INSERT = text(
    "INSERT INTO jobs (id, created_at, state, due_at)"
    " SELECT :name || n, now(), :state, now() + make_interval(secs => :due)"
    " FROM generate_series(1, :count) AS n"
)


def _sample(gauge: Any) -> float:
    (family,) = gauge.collect()
    return family.samples[0].value


def _look(ledger: Engine, exporter: Exporter) -> None:
    for look in (exporter.look_at_server, exporter.look_at_jobs):
        with ledger.begin() as connection:
            look(connection)


def test_jobs_whose_time_has_passed_are_overdue_after_a_minute(ledger: Engine) -> None:
    """Not what is late by less, nor what is to come, nor what is no longer to run."""
    with ledger.begin() as connection:
        for name, state, due, count in (
            ("late", "scheduled", -61, 3),
            ("later", "retrying", -500, 2),
            ("just", "scheduled", -30, 4),
            ("coming", "retrying", 3600, 5),
            ("over", "succeeded", -500, 6),
            ("runs", "running", -500, 7),
        ):
            values = {"name": name, "state": state, "due": due, "count": count}
            connection.execute(_INSERT, values)
    exporter = Exporter()
    _look(ledger, exporter)
    assert _sample(metrics.JOBS_OVERDUE) == 5
    assert 500 <= _sample(metrics.JOBS_OVERDUE_OLDEST) < 560
    with ledger.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'queued' WHERE id LIKE 'late%'"))
        connection.execute(text("DELETE FROM jobs WHERE id LIKE 'later%'"))
    _look(ledger, exporter)
    assert [_sample(gauge) for gauge in JOBS] == [0, 0]


def test_overdue_jobs_are_counted_in_an_index_and_up_to_a_bound(
    ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With any number of jobs that have ended, and while a stuck wheel owes very many."""
    monkeypatch.setattr(module, "_MOST_OVERDUE", 1000)
    with ledger.begin() as connection:
        for state, due, count in (("succeeded", -500, 20_000), ("scheduled", -500, 1500)):
            values = {"name": state, "state": state, "due": due, "count": count}
            connection.execute(_INSERT, values)
        connection.execute(text("ANALYZE jobs"))
        plan = connection.execute(
            text(f"EXPLAIN (FORMAT JSON) {module._OVERDUE.text}"), {"seconds": 60, "most": 1000}
        ).scalar_one()
    nodes = json.dumps(plan)
    assert "_due_at_idx" in nodes
    assert "Seq Scan" not in nodes
    _look(ledger, Exporter())
    assert _sample(metrics.JOBS_OVERDUE) == 1000


def test_what_was_seen_of_the_database_is_soon_unknown_again(ledger: Engine) -> None:
    """A database that is asked in vain keeps no good face: NaN, and it is not up."""
    clock = 1000.0
    exporter = Exporter(clock=lambda: clock)
    assert _sample(metrics.DATABASE_UP) == 0
    assert all(math.isnan(_sample(gauge)) for gauge in (*SERVER, *JOBS))
    _look(ledger, exporter)
    assert _sample(metrics.DATABASE_UP) == 1
    assert not any(math.isnan(_sample(gauge)) for gauge in (*SERVER, *JOBS))
    clock += FRESH_SECONDS - 1
    assert _sample(metrics.DATABASE_UP) == 1
    clock += 1
    assert _sample(metrics.DATABASE_UP) == 0
    assert all(math.isnan(_sample(gauge)) for gauge in (*SERVER, *JOBS))
    _look(ledger, exporter)
    exporter.lost()
    assert _sample(metrics.DATABASE_UP) == 0
    assert all(math.isnan(_sample(gauge)) for gauge in (*SERVER, *JOBS))


def test_a_look_ends_by_itself(ledger: Engine) -> None:
    """Two seconds, then the database itself ends the statement."""
    with ledger.begin() as connection:
        Exporter().look_at_jobs(connection)
        with pytest.raises(OperationalError, match="statement timeout"):
            connection.execute(text("SELECT pg_sleep(20)"))


def test_the_observer_tells_of_a_database_that_goes_away_and_comes_back(
    housekeeping_database: str,
) -> None:
    """It goes on asking, and what cannot be asked is shown as such."""
    with TcpProxy.before(housekeeping_database) as proxy:
        observer = Observer(proxy.through(housekeeping_database), every_seconds=0.05)
        observer.start()
        try:
            wait_until(lambda: _sample(metrics.DATABASE_UP) == 1, timeout=30)
            wait_until(lambda: not math.isnan(_sample(metrics.JOBS_OVERDUE)), timeout=30)
            proxy.refuse()
            wait_until(lambda: _sample(metrics.DATABASE_UP) == 0, timeout=30)
            assert math.isnan(_sample(metrics.DATABASE_CONNECTIONS))
            proxy.resume()
            wait_until(lambda: _sample(metrics.DATABASE_UP) == 1, timeout=30)
        finally:
            observer.stop()
            observer.join(30)
        assert not observer.is_alive()


def test_a_table_that_is_locked_says_nothing_of_the_server(housekeeping_database: str) -> None:
    """Jobs cannot be counted then, and all the same the database is up."""
    owner = engine(housekeeping_database, pool_size=1)
    observer = Observer(housekeeping_database, every_seconds=0.05)
    observer._exporter.lost()
    try:
        with owner.begin() as connection:
            connection.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
            observer.start()
            wait_until(lambda: _sample(metrics.DATABASE_UP) == 1, timeout=30)
            assert math.isnan(_sample(metrics.JOBS_OVERDUE))
        wait_until(lambda: not math.isnan(_sample(metrics.JOBS_OVERDUE)), timeout=30)
    finally:
        observer.stop()
        observer.join(30)
        owner.dispose()
