"""The demonstration's own workers: the real worker pool, with settings of the demonstration.

There are two, as a careful installation has them: what kills a worker of `default` takes nothing
of `bulk` with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compose.demo.errors import DemoError
from compose.native import processes
from compose.native.accounts import Account
from compose.native.service import INHERITED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compose.native.paths import Checkout

__all__ = ["Pools"]

#: Each pool's options, by its name.
POOLS = {
    "bulk": ["--queues", "bulk", "--processes", "2", "--threads", "2"],
    "other": ["--queues", "critical,default,scheduled", "--processes", "1", "--threads", "4"],
}
_GRACE_SECONDS = 8.0


class Pools:
    """The worker pools of one run. Found by their mark, also after the run was broken off."""

    def __init__(self, checkout: Checkout, log: Path) -> None:
        self._checkout = checkout
        self._log = log
        self._mark = checkout.demo_mark

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the pools; returns at once."""
        self._log.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if key in INHERITED}
        for name, options in POOLS.items():
            processes.spawn(
                [sys.executable, "-m", "services.worker", *options, "--grace", "5"],
                mark=self._mark,
                env={**inherited, **environment},
                log=self._file(name),
                account=Account.current(),
                cwd=self._checkout.root,
            )

    def stop(self) -> None:
        """Drain and end whatever runs of the demonstration, of this run or an earlier one."""
        processes.send(list(self._launchers()), signal.SIGTERM)
        processes.wait_until(
            lambda: not processes.marked(self._mark), timeout_seconds=_GRACE_SECONDS
        )
        processes.end(self._mark, grace_seconds=1)

    def check(self) -> None:
        """Raise `DemoError` when a pool has ended by itself."""
        if len(self._launchers()) < len(POOLS):
            logs = "\n".join(
                f"{self._file(name)} ends:\n{_tail(self._file(name))}" for name in POOLS
            )
            raise DemoError(f"a worker pool of the demonstration has ended. {logs}")

    def kill(self, pid: int) -> bool:
        """Kill one worker process (SIGKILL) if it is one of ours; tell whether it was."""
        if pid not in processes.marked(self._mark):
            return False
        processes.send([pid], signal.SIGKILL)
        return True

    def deaths(self) -> list[dict[str, Any]]:
        """Return what the launchers have logged about worker processes that died."""
        found = []
        for name in POOLS:
            lines = self._file(name).read_text(errors="replace").splitlines()
            found += [json.loads(line) for line in lines if '"worker.child_died"' in line]
        return found

    def _file(self, name: str) -> Path:
        return self._log / f"worker-{name}.log"

    def _launchers(self) -> list[int]:
        found = []
        for pid in processes.marked(self._mark):
            try:
                argv = (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended meanwhile
            if b"services.worker" in argv:
                found.append(pid)
        return found


def _tail(file: Path, lines: int = 8) -> str:
    text = file.read_text(errors="replace") if file.exists() else "(nothing was logged)"
    return "\n".join(text.splitlines()[-lines:])
