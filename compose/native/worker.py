"""The worker pool of the stack: one launcher for all four queues."""

from __future__ import annotations

import http.client
import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from compose.native import envfile, ports, processes
from compose.native.accounts import Account
from compose.native.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from compose.native.paths import Checkout

QUEUES = "critical,default,bulk,scheduled"
_MODULE = "services.worker"
_READY_SECONDS = 20.0
_GRACE_SECONDS = 15.0
#: What of the shell's environment a worker may see: no setting and no secret that is not its own.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV")


class Worker:
    """The workers of one checkout, as the user that started them."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        self._log = checkout.log / "worker.log"
        self._mark = f"worker:{checkout.stack}"

    def environment(self) -> dict[str, str]:
        """Return the settings that the workers get, none before the first `make up`."""
        try:
            return envfile.read(self._checkout.env_d / "worker.env")
        except FileNotFoundError:
            return {}

    def start(self) -> str:
        """Start the workers unless they run, wait until they are ready, tell where they are."""
        try:
            exists = importlib.util.find_spec(_MODULE) is not None
        except ModuleNotFoundError:
            exists = False
        if not exists:
            return f"none, this tree has no {_MODULE}"
        if not processes.marked(self._mark):
            self._spawn()
        ready = processes.wait_until(
            lambda: self.is_ready() or not processes.marked(self._mark),
            timeout_seconds=_READY_SECONDS,
        )
        if not ready or not self.is_ready():
            failure = f"are not ready after {_READY_SECONDS:.0f} s" if self.processes() else "ended"
            said = _tail(self._log.read_text(errors="replace"))
            raise StackError(f"the workers {failure}. {self._log} ends:\n{said}")
        return self.status()

    def stop(self) -> None:
        """Drain the workers and end them; return when no process is left."""
        processes.end(self._mark, grace_seconds=_GRACE_SECONDS)

    def processes(self) -> dict[int, str]:
        """Return the live processes of the pool: process id to program name."""
        return processes.marked(self._mark)

    def is_ready(self) -> bool:
        """Tell whether the workers consume from their queues."""
        port = ports.load(self._port_file).get("worker")
        if port is None:
            return False
        client = http.client.HTTPConnection(ports.HOST, port, timeout=2)
        try:
            client.request("GET", "/readyz")
            return client.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()

    def status(self) -> str:
        """Say in a few words what the workers do now."""
        running = processes.marked(self._mark)
        if not running:
            return "stopped"
        state = "ready" if self.is_ready() else "not ready"
        port = ports.load(self._port_file).get("worker")
        return f"{state}, {len(running)} processes on {QUEUES}; http://{ports.HOST}:{port}/metrics"

    @property
    def _port_file(self) -> Path:
        return self._checkout.stack / "ports.json"

    def _spawn(self) -> None:
        port = ports.remembered(self._port_file, ["worker"])["worker"]
        inherited = {key: value for key, value in os.environ.items() if key in INHERITED}
        processes.spawn(
            [sys.executable, "-m", _MODULE, "--queues", QUEUES],
            mark=self._mark,
            env={**inherited, **self.environment(), "LEVERET_HTTP_PORT": str(port)},
            log=self._log,
            account=Account.current(),
            cwd=self._checkout.root,
        )


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.splitlines()[-lines:])
