"""The processes of the stack that are Leveret's own.

Recorder, relay, API, scheduler, and one worker pool.
"""

from __future__ import annotations

import http
import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compose.native import envfile, ports, processes
from compose.native.accounts import Account
from compose.native.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from compose.native.paths import Checkout

__all__ = ["INHERITED", "KINDS", "QUEUES", "Kind", "Service"]

QUEUES = "critical,default,bulk,scheduled"
_READY_SECONDS = 30.0
_GRACE_SECONDS = 15.0
#: What of the shell's environment a process may see: no setting and no secret not its own.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of process."""

    name: str
    #: What ``python -m`` runs.
    module: str
    #: The file in ``env.d`` with its settings.
    role: str
    options: tuple[str, ...] = ()
    #: What it does, for the status.
    what: str
    #: The page to look at.
    page: str = "/metrics"


#: In the order in which they are started.
KINDS = (
    Kind(name="recorder", module="services.recorder", role="recorder", what="writes the ledger"),
    Kind(name="relay", module="services.relay", role="relay", what="empties the outbox"),
    Kind(
        name="api",
        module="services.api",
        role="api",
        what="answers HTTP",
        page="/openapi.json",
    ),
    Kind(name="scheduler", module="scheduler", role="scheduler", what="fires what is scheduled"),
    Kind(
        name="worker",
        module="services.worker",
        role="worker",
        options=("--queues", QUEUES),
        what=f"runs {QUEUES}",
    ),
)


class Service:
    """The process of one kind, with its children, as the user that started it."""

    def __init__(self, checkout: Checkout, kind: Kind) -> None:
        self.kind = kind
        self._checkout = checkout
        self._log = checkout.log / f"{kind.name}.log"
        self._mark = f"{kind.name}:{checkout.stack}"

    def environment(self) -> dict[str, str]:
        """Return the settings that it gets, none before the first `make up`."""
        try:
            return envfile.read(self._checkout.env_d / f"{self.kind.role}.env")
        except FileNotFoundError:
            return {}

    def spawn(self) -> None:
        """Start it unless it runs."""
        if processes.marked(self._mark):
            return
        name = self.kind.name
        port = ports.remembered(self._port_file, [name])[name]
        inherited = {key: value for key, value in os.environ.items() if key in INHERITED}
        processes.spawn(
            [sys.executable, "-m", self.kind.module, *self.kind.options],
            mark=self._mark,
            env={**inherited, **self.environment(), "LEVERET_HTTP_PORT": str(port)},
            log=self._log,
            account=Account.current(),
            cwd=self._checkout.root,
        )

    def wait_until_ready(self) -> str:
        """Wait until it does its work, and tell where it is; raises `StackError` if it does not."""
        ready = processes.wait_until(
            lambda: self.is_ready() or not processes.marked(self._mark),
            timeout_seconds=_READY_SECONDS,
        )
        if not ready or not self.is_ready():
            failure = f"is not ready after {_READY_SECONDS:.0f} s" if self.processes() else "ended"
            said = _tail(self._log.read_text(errors="replace"))
            raise StackError(f"the {self.kind.name} {failure}. {self._log} ends:\n{said}")
        return self.status()

    def stop(self) -> None:
        """Let it finish what it has begun; return when no process is left."""
        processes.end(self._mark, grace_seconds=_GRACE_SECONDS)

    def processes(self) -> dict[int, str]:
        """Return its live processes: process id to program name."""
        return processes.marked(self._mark)

    def is_ready(self) -> bool:
        """Tell whether it does its work."""
        port = self.port
        return port is not None and answers(port)

    @property
    def port(self) -> int | None:
        """Where it answers HTTP."""
        return ports.load(self._port_file).get(self.kind.name)

    def status(self) -> str:
        """Say in a few words what it does now."""
        running = processes.marked(self._mark)
        if not running:
            return "stopped"
        state = "ready" if self.is_ready() else "not ready"
        count = f", {len(running)} processes" if len(running) > 1 else ""
        where = f"http://{ports.HOST}:{self.port}{self.kind.page}"
        return f"{state}{count}, {self.kind.what}; {where}"

    @property
    def _port_file(self) -> Path:
        return self._checkout.stack / "ports.json"


def answers(port: int) -> bool:
    """Tell whether the process at ``port`` says that it is ready."""
    return ports.status(port, "/readyz") == http.HTTPStatus.OK


def present() -> tuple[Kind, ...]:
    """Return the kinds that this tree has."""
    return tuple(kind for kind in KINDS if _exists(kind.module))


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"{module}.__main__") is not None
    except ModuleNotFoundError:
        return False


def _tail(text: str, lines: int = 15) -> str:
    return "\n".join(text.splitlines()[-lines:])
