"""A contestant's worker processes: started together, measured as a tree, stopped for certain."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.benchmarks.error import BenchmarkError

# What is measured is over by then; some libraries wait for nothing longer than this.
_STOP_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a tree of processes holds."""

    #: Each page counted once, shared ones in shares: what the machine really gives.
    pss_mb: float
    #: The sum that most tools show; pages shared after a fork are counted in every process.
    rss_mb: float
    processes: int


class Workers:
    """The commands that make up one contestant's workers."""

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
    ) -> None:
        self._commands = commands
        self._environment = environment
        self._folder = folder
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            for command in self._commands:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", *command],
                        env=self._environment,
                        cwd=self._folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
            # Each command leads a process group of its own: whatever is left of it goes too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def check(self) -> None:
        """Raise when a command has ended by itself."""
        for process, command in zip(self._processes, self._commands, strict=True):
            if process.poll() is not None:
                raise BenchmarkError(
                    f"the worker `python -m {' '.join(command)}` ended with status "
                    f"{process.returncode}; its output is in {self._log}:\n{self.tail()}"
                )

    def tail(self) -> str:
        """Return the end of what the workers printed."""
        return self._log.read_text(errors="replace")[-2000:]

    def memory(self) -> Memory:
        """Measure the whole tree, launcher and children."""
        # Imported here because only the scenarios that weigh need it.
        import psutil  # noqa: PLC0415

        tree: list[psutil.Process] = []
        for started in self._processes:
            root = psutil.Process(started.pid)
            tree += [root, *root.children(recursive=True)]
        full = [process.memory_full_info() for process in tree]
        return Memory(
            pss_mb=sum(each.pss for each in full) / 2**20,
            rss_mb=sum(each.rss for each in full) / 2**20,
            processes=len(full),
        )


def clean_environment() -> dict[str, str]:
    """Return this process's environment less what would configure a contestant from outside."""
    prefixes = ("LEVERET_", "dramatiq_", "CELERY_", "TASKIQ_", "FASTSTREAM_", "BENCH_")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
