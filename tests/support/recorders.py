"""A recorder as a process: start it, look at it, kill it; and what it has written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

from leveret import store
from leveret.store import migrate
from tests.support.processes import OurProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.abc import Buffer


def migrated(url: str) -> str:
    """Bring a database to the schema, and return its URL."""
    engine = store.engine(url)
    try:
        migrate.upgrade(engine)
    finally:
        engine.dispose()
    return url


class RecorderProcess(OurProcess):
    """``python -m services.recorder`` of one test."""

    def __init__(
        self,
        environment: Mapping[str, str],
        database_url: str,
        folder: Path,
        *,
        module: Sequence[str] = ("-m", "services.recorder"),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        settings = {**environment, "LEVERET_DATABASE_URL": database_url, **(variables or {})}
        super().__init__("recorder", module, settings, folder=folder)


LONG_AGO = datetime.min.replace(tzinfo=UTC)


class _Moments(TimestamptzLoader):
    """Reads times, and the one before all times."""

    def load(self, data: Buffer) -> datetime:
        return LONG_AGO if bytes(data) == b"-infinity" else super().load(data)


class Ledger:
    """What is in the database."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)
        self._connection.adapters.register_loader("timestamptz", _Moments)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Return what a query finds."""
        return self._connection.execute(query, parameters or None).fetchall()

    def run(self, statement: str, *parameters: Any) -> None:
        """Run a statement that finds nothing."""
        self._connection.execute(statement, parameters or None)

    def value(self, query: str, *parameters: Any) -> Any:
        """Return the one value that a query finds."""
        return next(iter(self.rows(query, *parameters)[0].values()))

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return a job's row."""
        return next(iter(self.rows("SELECT * FROM jobs WHERE id = %s", job_id)), None)

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """Return the attempts of a job, in order."""
        return self.rows(
            "SELECT * FROM attempts WHERE job_id = %s ORDER BY run, attempt, started_at", job_id
        )

    def wait(self, job_id: str, state: str, timeout: float = 30.0) -> dict[str, Any]:
        """Return a job's row when it is in a state."""

        def there() -> dict[str, Any] | None:
            nonlocal found
            found = self.job(job_id)
            return found if found is not None and found["state"] == state else None

        found: dict[str, Any] | None = None
        try:
            return wait_until(there, timeout=timeout, every=0.05)
        except TimeoutError:
            raise TimeoutError(f"{job_id} is not {state} after {timeout} s: {found}") from None

    def wait_value(self, wanted: Any, query: str, *parameters: Any, timeout: float = 30.0) -> None:
        """Return when a query finds a value."""
        wait_until(
            lambda: self.value(query, *parameters) == wanted,
            timeout=timeout,
            every=0.05,
            what=f"{query} is {wanted!r}",
        )
