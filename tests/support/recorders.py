"""A recorder as a process: start it, look at it, kill it; and what it has written."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from prometheus_client.parser import text_string_to_metric_families
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

from compose.native import ports
from leveret import store
from leveret.store import migrate
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.abc import Buffer

ROOT = Path(__file__).parents[2]


def migrated(url: str) -> str:
    """Bring a database to the schema, and return its URL."""
    engine = store.engine(url)
    try:
        migrate.upgrade(engine)
    finally:
        engine.dispose()
    return url


class RecorderProcess:
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
        self.port = ports.choose()
        self._log = folder / f"recorder-{self.port}.log"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")
        }
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *module],
                cwd=ROOT,
                env={
                    **kept,
                    **environment,
                    "LEVERET_DATABASE_URL": database_url,
                    "LEVERET_HTTP_PORT": str(self.port),
                    "LEVERET_LOG_FORMAT": "json",
                    **(variables or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """What the process has said."""
        return self._log.read_text(errors="replace")

    def wait_ready(self, timeout: float = 30.0) -> RecorderProcess:
        """Return when it consumes every queue and has its database."""
        wait_until(self.is_ready, timeout=timeout, what="the recorder is ready")
        return self

    def is_ready(self) -> bool:
        """Ask `/readyz`."""
        if self.process.poll() is not None:
            raise RuntimeError(f"it has ended with {self.process.returncode}:\n{self.log}")
        return self.get("/readyz")[0] == http.HTTPStatus.OK

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of a page; status 0 when nobody answers."""
        client = http.client.HTTPConnection(ports.HOST, self.port, timeout=5)
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            client.close()

    def metric(self, sample: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        return sum(
            found.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def kill(self) -> None:
        """Kill it (SIGKILL), and return when it is gone."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout: float = 20.0) -> int:
        """Ask it to end (SIGTERM); return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


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
