"""Docker Compose's stack as these tests start it: in a private engine, with secrets of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from compose.engine import Engine
from compose.native import envfile, ports
from tests.containers.image import ROOT

__all__ = ["LONG_RUNNING", "POOLS", "PROCESSES", "WATCHING", "Deployment"]

#: The services that run until they are stopped, with what each is made of.
POOLS = ("worker-critical", "worker-default", "worker-bulk", "worker-scheduled")
PROCESSES = ("api", "relay", "recorder", "scheduler", *POOLS)
LONG_RUNNING = ("rabbitmq", "postgres", *PROCESSES)
#: What watches them, in the profile `observability`.
WATCHING = ("prometheus", "alertmanager")
_PORTS = (
    *("amqp", "management", "prometheus", "postgres", "api"),
    *("prometheus_web", "alertmanager", "grafana"),
)


@dataclass
class Deployment:
    """One project of Compose; `up` starts it, `down` leaves nothing of it."""

    engine: Engine
    project: str
    folder: Path
    override: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        chosen = ports.remembered(self.folder / "ports.json", _PORTS)
        self.ports = chosen
        variables = {f"LEVERET_{name.upper()}_PORT": str(port) for name, port in chosen.items()}
        variables["LEVERET_SECRETS"] = str(self.folder / "secrets")
        self.variables = variables
        envfile.write(self.folder / "compose.env", variables)
        subprocess.run(
            ["sh", str(ROOT / "compose" / "secrets.sh"), variables["LEVERET_SECRETS"]],
            env={"PATH": os.environ["PATH"], **variables},
            check=True,
            capture_output=True,
        )
        self._files = ["--file", str(ROOT / "compose" / "compose.yaml")]
        if self.override:
            (self.folder / "override.yaml").write_text(self.override)
            self._files += ["--file", str(self.folder / "override.yaml")]

    def compose(
        self, *argv: str, check: bool = True, timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Compose on this project."""
        env_file = str(self.folder / "compose.env")
        return self.engine.compose(
            *("--project-name", self.project, *self._files, "--env-file", env_file),
            *("--profile", "core", *argv),
            check=check,
            timeout_seconds=timeout_seconds,
        )

    def shell(self, text: str) -> str:
        """Run commands of a page in this checkout; return what they printed."""
        answer = subprocess.run(
            ["sh", "-euc", text],
            cwd=ROOT,
            env={
                **self.engine.environment,
                **self.variables,
                "COMPOSE_PROJECT_NAME": self.project,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert answer.returncode == 0, f"{text}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    def up(self, *services: str) -> Self:
        """Start services (all of the profile `core`), and wait until they are healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "240", *services)
        return self

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        everything = ("--profile", "observability", "down", "--volumes", "--timeout", "1")
        self.compose(*everything, check=False)

    def leveret(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command `leveret` as the administrator, in a container of its own."""
        return self.compose("run", "--rm", "--no-TTY", "leveret", *argv, check=check)

    def secrets(self) -> dict[str, str]:
        """Return every password that was generated, by its file."""
        return {
            file.name: file.read_text().strip()
            for file in (self.folder / "secrets").glob("*.password")
        }

    @property
    def client_url(self) -> str:
        """The AMQP URL of a publisher on this machine."""
        return envfile.read(self.folder / "secrets" / "client.env")["LEVERET_AMQP_URL"]

    def containers(self, service: str) -> list[str]:
        """Return the containers of a service, running or not."""
        return self.compose("ps", "--all", "--quiet", service).stdout.split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        return self.engine.inspect(container)

    def crash(self, container: str) -> None:
        """Kill the first process of a container, and with it all others; Docker restarts it."""
        os.kill(self.inspect(container)["State"]["Pid"], signal.SIGKILL)

    def get(self, container: str, path: str) -> tuple[int, str]:
        """Ask a process over HTTP, from outside; status 0 when it does not answer."""
        networks = self.inspect(container)["NetworkSettings"]["Networks"].values()
        address = next((net["IPAddress"] for net in networks if net["IPAddress"]), None)
        if address is None:
            return 0, ""
        client = http.client.HTTPConnection(address, 8000, timeout=2)
        try:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            client.close()

    def seconds_to_ready(self, service: str, *, limit: float = 30.0) -> float:
        """Start a service anew; return how long its first container took to become ready."""
        container = self.containers(service)[0]
        self.engine.docker("kill", container, check=False)
        self.engine.docker("start", container)
        started = datetime.fromisoformat(self.inspect(container)["State"]["StartedAt"][:19] + "Z")
        fraction = float("0." + self.inspect(container)["State"]["StartedAt"][20:-1])
        begin = started.timestamp() + fraction
        while self.get(container, "/readyz")[0] != http.client.OK:
            if time.time() - begin > limit:
                said = self.engine.docker("logs", "--tail", "20", container)
                raise TimeoutError(f"{service} is not ready after {limit} s:\n{said.stderr}")
            time.sleep(0.02)
        return time.time() - begin

    def health(self, container: str) -> str:
        """Return what the health check says: starting, healthy, unhealthy."""
        state = self.inspect(container)["State"]
        return str(state.get("Health", {}).get("Status", "none"))

    def restarts(self, container: str) -> int:
        """Return how often Docker has restarted a container."""
        return int(self.inspect(container)["RestartCount"])

    def config(self) -> dict[str, Any]:
        """Return the composed file as Compose understands it."""
        found: dict[str, Any] = json.loads(self.compose("config", "--format", "json").stdout)
        return found
