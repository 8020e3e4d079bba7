"""A real process of ours in a test: its port, its log, its pages, and its end."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from prometheus_client.parser import text_string_to_metric_families

from compose.native import ports
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]


def bare_environment() -> dict[str, str]:
    """Return the environment without what the shell has set for Leveret, and for its traces."""
    foreign = ("LEVERET_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def ask(port: int, path: str, accept: str = "*/*") -> tuple[int, str]:
    """Return the status and the text of a page; status 0 when nobody answers."""
    client = http.client.HTTPConnection(ports.HOST, port, timeout=5)
    try:
        client.request("GET", path, headers={"Accept": accept})
        response = client.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        client.close()


class OurProcess:
    """A Python process of one test, which answers health checks on a port of its own.

    ``name`` is what it is called in messages; ``environment`` comes on top of `bare_environment`.
    With ``group`` it leads a process group. As a context manager it is killed at the end.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: Path,
        group: bool = False,
    ) -> None:
        self.name = name
        self.port = ports.choose()
        self.url = f"http://{ports.HOST}:{self.port}"
        self._log = folder / f"{name}-{self.port}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                cwd=ROOT,
                env={
                    **bare_environment(),
                    "LEVERET_HTTP_PORT": str(self.port),
                    "LEVERET_LOG_FORMAT": "json",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=group,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    # --------------------------------------------------------------------------------- what it says

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    def events(self, name: str) -> int:
        """Count its log lines of one kind."""
        return self.log.count(f'"event":"{name}"')

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of a page; status 0 when nobody answers."""
        return ask(self.port, path)

    def metric(self, sample: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        return sum(
            found.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def is_ready(self, path: str = "/readyz") -> bool:
        """Ask whether it does its work; raises when it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(
                f"the {self.name} has ended with {self.process.returncode}:\n{self.log}"
            )
        return self.get(path)[0] == http.HTTPStatus.OK

    def wait_ready(self, path: str = "/readyz", *, timeout: float = 60.0) -> Self:
        """Return when it does its work, or when another page answers 200."""
        wait_until(
            lambda: self.is_ready(path),
            timeout=timeout,
            every=0.05,
            what=f"the {self.name} answers {path}",
        )
        return self

    # ------------------------------------------------------------------------------------- its end

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it (SIGKILL), and return when it is gone."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, timeout: float = 30.0) -> int:
        """Ask it to end (SIGTERM); return its exit status."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout)
