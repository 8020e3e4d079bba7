"""A relay as a process, and outboxes to relay from."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from compose.native import ports
from leveret.store.outbox import statements
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.brokers import Vhost

ROOT = Path(__file__).parents[2]


def lay_out(url: str) -> str:
    """Make the outbox in a database as a service does; return the URL."""
    with psycopg.connect(url) as connection:
        for statement in statements():
            connection.execute(statement)
    return url


def waiting(url: str) -> int:
    """Count the rows of an outbox."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM leveret_outbox").fetchone()
    assert found is not None
    return found[0]


class RelayProcess:
    """``python -m services.relay`` of one test."""

    def __init__(
        self,
        vhost: Vhost,
        *urls: str,
        folder: Path,
        module: str = "services.relay",
        role: str = "relay",
        **variables: str,
    ) -> None:
        self.port = ports.choose()
        self._log = folder / f"relay-{self.port}.log"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")
        }
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env={
                    **kept,
                    "LEVERET_AMQP_URL": vhost.url(role),
                    "LEVERET_OUTBOX_URLS": ",".join(urls),
                    "LEVERET_HTTP_PORT": str(self.port),
                    "LEVERET_LOG_FORMAT": "json",
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    def events(self, name: str) -> int:
        """Count its log lines of one kind."""
        return self.log.count(f'"event":"{name}"')

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

    def wait_ready(self) -> RelayProcess:
        """Return when the broker and every database answer."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the relay ended, {self.process.returncode}:\n{self.log}")
            return self.get("/readyz")[0] == http.HTTPStatus.OK

        wait_until(ready, timeout=30, what="the relay is ready", every=0.05)
        return self

    def metric(self, sample: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        return sum(
            found.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, timeout: float = 30.0) -> int:
        """Ask it to end (SIGTERM); return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout)


@contextmanager
def held_transaction(url: str) -> Iterator[None]:
    """Keep a transaction open, and with it every dead row of the database."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT txid_current()")
        yield


__all__ = ["RelayProcess", "held_transaction", "lay_out", "waiting"]
