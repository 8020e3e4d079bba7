"""The demonstration's own processes, with settings of the demonstration.

Recorder, relay, API, two schedulers, and two worker pools, as a careful installation has them: what
kills a worker of `default` takes nothing of `bulk` with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compose.demo.errors import DemoError
from compose.native import ports, processes
from compose.native.accounts import Account
from compose.native.service import INHERITED, answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compose.native.paths import Checkout

__all__ = ["Pools"]

#: The processes beside the pools; each has the settings of the role of its name.
SERVICES = ("recorder", "relay", "api")
#: Of which one leads.
SCHEDULERS = ("scheduler-1", "scheduler-2")
#: Each pool's options, by its name.
POOLS = {
    "bulk": ["--queues", "bulk", "--processes", "2", "--threads", "2"],
    "other": ["--queues", "critical,default,scheduled", "--processes", "1", "--threads", "4"],
}
_GRACE_SECONDS = 8.0
_READY_SECONDS = 30.0


class Pools:
    """The processes of one run. Found by their mark, also after the run was broken off."""

    def __init__(self, checkout: Checkout, log: Path) -> None:
        self._checkout = checkout
        self._log = log
        self._mark = checkout.demo_mark
        #: How many processes were started here, and not killed on purpose.
        self._wanted = 0

    def start(self, environments: Mapping[str, Mapping[str, str]]) -> str:
        """Start everything with the settings of each role; return where the API answers.

        Returns when the API does; what is published before the others are ready waits for them.
        """
        self._log.mkdir(parents=True, exist_ok=True)
        port = ports.choose()
        for name in SERVICES:
            own = {"LEVERET_HTTP_PORT": str(port)} if name == "api" else {}
            self._spawn(name, [f"services.{name}"], {**environments[name], **own})
        for name in SCHEDULERS:
            self._spawn(name, ["scheduler"], environments["scheduler"])
        for name, options in POOLS.items():
            command = ["services.worker", *options, "--grace", "5"]
            self._spawn(f"worker-{name}", command, environments["worker"])
        if not processes.wait_until(lambda: answers(port), timeout_seconds=_READY_SECONDS):
            said = "\n".join(f"{name} said:\n{_tail(self._file(name))}" for name in SERVICES)
            raise DemoError(f"the API is not ready after {_READY_SECONDS:.0f} s. {said}")
        return f"http://{ports.HOST}:{port}"

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        inherited = {key: value for key, value in os.environ.items() if key in INHERITED}
        self._wanted += 1
        processes.spawn(
            [sys.executable, "-m", *command],
            mark=self._mark,
            env={**inherited, **environment},
            log=self._file(name),
            account=Account.current(),
            cwd=self._checkout.root,
        )

    def stop(self) -> None:
        """Drain and end whatever runs of the demonstration, of this run or an earlier one."""
        processes.send(self._mains(), signal.SIGTERM)
        processes.wait_until(
            lambda: not processes.marked(self._mark), timeout_seconds=_GRACE_SECONDS
        )
        processes.end(self._mark, grace_seconds=1)

    def check(self) -> None:
        """Raise `DemoError` when one of them has ended by itself."""
        running = self._mains()
        if len(running) < self._wanted:
            logs = [*(f"worker-{name}" for name in POOLS), *SERVICES, *SCHEDULERS]
            said = "\n".join(
                f"{self._file(name)} ends:\n{_tail(self._file(name))}" for name in logs
            )
            raise DemoError(f"a process of the demonstration has ended. {said}")

    def kill(self, pid: int) -> bool:
        """Kill one process (SIGKILL) if it is one of ours; tell whether it was."""
        if pid not in processes.marked(self._mark):
            return False
        processes.send([pid], signal.SIGKILL)
        return True

    def kill_main(self, pid: int) -> bool:
        """Kill a process that was started here, and expect it no more; tell whether it was."""
        if pid not in self._mains() or not self.kill(pid):
            return False
        self._wanted -= 1
        return True

    def deaths(self) -> list[dict[str, Any]]:
        """Return what the launchers have logged about worker processes that died."""
        found = []
        for name in POOLS:
            lines = self._file(f"worker-{name}").read_text(errors="replace").splitlines()
            found += [json.loads(line) for line in lines if '"worker.child_died"' in line]
        return found

    def _file(self, name: str) -> Path:
        return self._log / f"{name}.log"

    def _mains(self) -> list[int]:
        """Return the processes that were started here: launchers, not their children."""
        wanted = {b"scheduler", b"services.worker"}
        wanted |= {f"services.{name}".encode() for name in SERVICES}
        found = []
        for pid in processes.marked(self._mark):
            try:
                argv = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended meanwhile
            if wanted & set(argv):
                found.append(pid)
        return found


def _tail(file: Path, lines: int = 8) -> str:
    text = file.read_text(errors="replace") if file.exists() else "(nothing was logged)"
    return "\n".join(text.splitlines()[-lines:])
