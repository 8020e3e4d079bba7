"""Databases with Leveret's tables, and schedulers on them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from leveret.store import engine
from leveret.store.migrate import upgrade
from tests.support.schedulers import SchedulerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count(1)


class Statements:
    """A connection in autocommit mode, as a lease and a fire want it. Thread-safe."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)

    def run(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows."""
        cursor = self.connection.execute(statement.encode(), values)
        return [] if cursor.description is None else cursor.fetchall()


@pytest.fixture
def runner(ledger_database: str) -> Iterator[Statements]:
    """Return a connection to the test process's database."""
    made = Statements(ledger_database)
    yield made
    made.connection.close()


@pytest.fixture
def new_name(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return a function that makes up a name that no other test has."""
    return lambda: f"{request.node.originalname}.{next(_numbers)}"[-120:]


@pytest.fixture
def timetable(fresh_database: str) -> str:
    """Return the URL of a database with Leveret's tables, of this test alone."""
    owner = engine(fresh_database, pool_size=1)
    try:
        upgrade(owner)
    finally:
        owner.dispose()
    return fresh_database


@pytest.fixture
def schedulers(tmp_path: Path) -> Iterator[Callable[..., SchedulerProcess]]:
    """Return a function that starts a scheduler and waits for nothing."""
    made: list[SchedulerProcess] = []

    def start(url: str, **options: Any) -> SchedulerProcess:
        made.append(SchedulerProcess(url, folder=tmp_path, **options))
        return made[-1]

    yield start
    for each in made:
        each.kill()
        print(each.log[-3000:])
        assert "Traceback" not in each.log
