"""A worker pool as a process: start it, look at it, kill parts of it."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.faultjobs import FOLDER, Journal
from tests.support.processes import OurProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class WorkerPool(OurProcess):
    """``python -m services.worker`` of one test, in a process group of its own."""

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path,
        *,
        queues: str = "default",
        threads: int = 4,
        processes: int = 1,
        prefetch: int = 0,
        grace: float = 30.0,
        actors: Sequence[str] = ("tests.support.faultjobs",),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.journal = Journal(folder)
        argv = (
            *("-m", "services.worker", "--queues", queues),
            *("--threads", str(threads), "--processes", str(processes)),
            *("--prefetch", str(prefetch), "--grace", str(grace)),
        )
        settings = {
            **environment,
            **(variables or {}),
            "LEVERET_ACTORS": ",".join(actors),
            FOLDER: str(folder),
        }
        super().__init__("pool", argv, settings, folder=folder, group=True)

    # ------------------------------------------------------------------------------- its processes

    def children(self, *, lane: bool = False) -> list[int]:
        """Return the process ids of the children, or of the quarantine lane's."""
        return [
            pid
            for pid, words in self._group().items()
            if "services.worker.child" in words and ("--lane" in words) is lane
        ]

    def processes(self) -> list[int]:
        """Return every live process of the pool."""
        return list(self._group())

    def _group(self) -> dict[int, list[str]]:
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == self.process.pid and fields[0] != "Z":
                found[int(entry.name)] = words
        return found

    def kill_everything(self) -> None:
        """Kill the launcher and its children at once (SIGKILL); return when all are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        wait_until(lambda: not self._group(), what="the pool's processes are gone")

    def drain(self) -> None:
        """Ask the launcher to drain (SIGTERM); returns at once."""
        self.signal(signal.SIGTERM)

    # ---------------------------------------------------------------------------------- its health

    def faults(self) -> list[str]:
        """Ask `/livez` for what is wrong."""
        status, text = self.get("/livez")
        return json.loads(text)["faults"] if status else ["nobody answers"]
