"""A worker pool as a process: start it, look at it, kill parts of it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from compose.native import ports
from tests.support.faultjobs import FOLDER, Journal
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]


class WorkerPool:
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
        self.port = ports.choose()
        self._log = folder / f"worker-{self.port}.log"
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")
        }
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "services.worker", "--queues", queues),
                    *("--threads", str(threads), "--processes", str(processes)),
                    *("--prefetch", str(prefetch), "--grace", str(grace)),
                    *("--http-port", str(self.port)),
                ],
                cwd=ROOT,
                env={
                    **kept,
                    **environment,
                    **(variables or {}),
                    "LEVERET_ACTORS": ",".join(actors),
                    "LEVERET_LOG_FORMAT": "json",
                    FOLDER: str(folder),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """What the pool's processes have said."""
        return self._log.read_text(errors="replace")

    def wait_ready(self, timeout: float = 30.0) -> WorkerPool:
        """Return when every queue is consumed by every process."""
        wait_until(self.is_ready, timeout=timeout, what="the pool is ready")
        return self

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

    def kill_launcher(self) -> None:
        """Kill the launcher alone (SIGKILL)."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> None:
        """Ask the launcher to drain (SIGTERM)."""
        self.process.terminate()

    # ---------------------------------------------------------------------------------- its health

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

    def is_ready(self) -> bool:
        """Ask `/readyz`."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the pool has ended with {self.process.returncode}:\n{self.log}")
        return self.get("/readyz")[0] == http.HTTPStatus.OK

    def faults(self) -> list[str]:
        """Ask `/livez` for what is wrong."""
        status, text = self.get("/livez")
        return json.loads(text)["faults"] if status else ["nobody answers"]

    def metric(self, sample: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        return sum(
            found.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )
