"""Schedulers as processes, and schedules for them."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libfaketime
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from compose.native import ports
from leveret.schedules import store
from leveret.schedules.definition import Definition
from leveret.schedules.trigger import Every
from leveret.store import engine
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
#: What is loaded into a process to tell it another time.
FAKETIME = Path(libfaketime.__file__).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


class SchedulerProcess:
    """``python -m scheduler`` of one test."""

    def __init__(
        self,
        url: str,
        *,
        folder: Path,
        term: float = 2.0,
        module: str = "scheduler",
        faked: bool = False,
        **variables: str,
    ) -> None:
        self.port = ports.choose()
        self._log = folder / f"scheduler-{self.port}.log"
        self._time = folder / f"scheduler-{self.port}.time"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")
        }
        if faked:
            self.jump(0)
            kept |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._time),
                "FAKETIME_NO_CACHE": "1",
            }
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env={
                    **kept,
                    "LEVERET_DATABASE_URL": url,
                    "LEVERET_ACTORS": "tests.support.tickjobs",
                    "LEVERET_HOUSEKEEPING": "false",
                    "LEVERET_SCHEDULER_LEASE": f"{term:g}",
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

    def wait_ready(self) -> SchedulerProcess:
        """Return when it leads or stands by."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the scheduler ended, {self.process.returncode}:\n{self.log}")
            return self.get("/readyz")[0] == http.HTTPStatus.OK

        wait_until(ready, timeout=30, what="the scheduler is ready", every=0.05)
        return self

    def metric(self, sample: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        return sum(
            found.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    @property
    def leads(self) -> bool:
        """Whether it has the lease, as it says."""
        return self.metric("leveret_scheduler_is_leader") == 1

    def jump(self, seconds: float) -> None:
        """Set its clocks so many seconds off those of the machine."""
        fresh = self._time.with_suffix(".new")
        fresh.write_text(f"{seconds:+g}\n")
        fresh.rename(self._time)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, timeout: float = 30.0) -> int:
        """Ask it to end (SIGTERM); return its exit status."""
        self.process.terminate()
        return self.process.wait(timeout)


def every(name: str, seconds: float, **fields: Any) -> Definition:
    """Return a schedule with a slot each so many seconds."""
    return Definition(
        name=name, actor="tick.tock", trigger=Every(timedelta(seconds=seconds)), **fields
    )


def create(url: str, definitions: Iterable[Definition]) -> None:
    """Make schedules, in one transaction."""
    owner = engine(url, pool_size=1)
    try:
        with owner.begin() as connection:
            for definition in definitions:
                store.create(connection, definition, origin="api", by="test")
    finally:
        owner.dispose()


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement; return its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return [] if cursor.description is None else cursor.fetchall()


__all__ = ["FAKETIME", "SchedulerProcess", "create", "every", "query"]
