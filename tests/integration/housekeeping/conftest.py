"""A ledger that is empty for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from leveret.store import engine, migrate
from tests.support.databases import temporary_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from compose.native.paths import Checkout

_USED = (
    "audit_log, claims, idempotent_requests, job_rollups, jobs, attempts, leases, leveret_outbox,"
    " rollup_marks, schedule_slots, schedules, unique_jobs, watches"
)


@pytest.fixture(scope="session")
def housekeeping_database(checkout: Checkout) -> Iterator[str]:
    """Return the URL of a database with Leveret's tables, for these tests of one process."""
    with temporary_database(checkout, "house") as url:
        made = engine(url, pool_size=1)
        migrate.upgrade(made)
        made.dispose()
        yield url


@pytest.fixture
def ledger(housekeeping_database: str) -> Iterator[Engine]:
    """Return an engine of that database, emptied."""
    made = engine(housekeeping_database, pool_size=5)
    with made.begin() as connection:
        connection.execute(text(f"TRUNCATE {_USED}"))
    yield made
    made.dispose()
