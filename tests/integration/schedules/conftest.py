"""A database with Leveret's tables, and names of schedules that no other test has."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from leveret.store import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

_numbers = itertools.count(1)


@pytest.fixture
def database_engine(ledger_database: str) -> Iterator[Engine]:
    """Return an engine of the test process's database."""
    made = engine(ledger_database, pool_size=5)
    yield made
    made.dispose()


@pytest.fixture
def new_name(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Return a function that makes up the name of a schedule."""
    return lambda: f"{request.node.originalname}.{next(_numbers)}"
