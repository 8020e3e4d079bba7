"""All of Leveret's processes on a broker and a database of one test, any of which may be killed."""

from __future__ import annotations

import http
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compose.native import ports
from tests.support.processes import ROOT, ask, bare_environment
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compose.native.postgres import PostgresServer
    from tests.support.brokers import PrivateBroker

#: What runs, with its role and the options of its command.
PROCESSES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "recorder": ("recorder", ("services.recorder",)),
    "relay": ("relay", ("services.relay",)),
    "api": ("api", ("services.api",)),
    "worker": (
        "worker",
        (
            *("services.worker", "--queues", "critical,default,bulk,scheduled"),
            *("--threads", "4", "--processes", "2"),
        ),
    ),
}


class System:
    """Recorder, relay, API and workers; `kill` and `start` each by its name."""

    def __init__(
        self, broker: PrivateBroker, postgres: PostgresServer, folder: Path, actors: Sequence[str]
    ) -> None:
        self.broker = broker
        self.postgres = postgres
        self._folder = folder
        self._actors = ",".join(actors)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = {name: ports.choose() for name in PROCESSES}

    def environment(self, role: str) -> dict[str, str]:
        """Return the settings of a role, without what the shell has set."""
        return {
            **bare_environment(),
            **self.broker.vhost.environment(role),
            "LEVERET_DATABASE_URL": self.postgres.url(),
            "LEVERET_ACTORS": self._actors,
            "LEVERET_LOG_FORMAT": "json",
        }

    def start(self, name: str) -> None:
        """Start a process; returns at once."""
        role, command = PROCESSES[name]
        with self._log(name).open("ab") as output:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env={**self.environment(role), "LEVERET_HTTP_PORT": str(self.ports[name])},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_all(self) -> None:
        """Start every process, and return when all are ready."""
        for name in PROCESSES:
            self.start(name)
        self.wait_ready()

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Return when every process does its work."""
        for name in PROCESSES:
            wait_until(
                lambda name=name: ask(self.ports[name], "/readyz")[0] == http.HTTPStatus.OK,
                timeout=timeout,
                every=0.1,
                what=f"{name} is ready; it said {self.said(name)}",
            )

    def kill(self, name: str) -> None:
        """Kill a process and its children (SIGKILL), and return when it is gone."""
        process = self._running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)

    def stop(self) -> None:
        """End everything."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for name in list(self._running):
            with suppress(subprocess.TimeoutExpired):
                self._running[name].wait(10)
            self.kill(name)

    def leveret(self, *command: str, timeout: float = 200.0) -> subprocess.CompletedProcess[str]:
        """Run the command line as the administrator."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("leveret")), *command],
            env=self.environment("admin"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def audit(self, *options: str, wait: float = 30.0) -> dict[str, Any]:
        """Return what `leveret audit` says."""
        answer = self.leveret("audit", "--json", "--wait", str(wait), *options)
        assert answer.stdout, answer.stderr
        document: dict[str, Any] = json.loads(answer.stdout)
        return document

    def said(self, name: str) -> str:
        """Return the end of what a process has said."""
        file = self._log(name)
        return file.read_text(errors="replace")[-1500:] if file.exists() else ""

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
