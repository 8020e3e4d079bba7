"""The board: where every actor of every contestant notes that it ran.

A file in shared memory with one place per job: when the job first and last ran (`CLOCK_MONOTONIC`
in nanoseconds, which is one clock for all processes of a machine) and how many times. A note costs
about half a microsecond, takes no lock and no system call, and is the same code for everybody, so
measuring distorts neither the figures nor the order of the contestants.

No lock is needed because a place belongs to one job, and a job runs in one place at a time.
"""

import mmap
import os
import time
from pathlib import Path
from typing import Self

#: Names the board's file to the processes of a contestant.
BOARD_VARIABLE = "BENCH_BOARD"

_BYTES_PER_JOB = 17  # first and last: 8 bytes each; runs: 1


class Board:
    """One place per job, shared by the harness and all processes of a contestant."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.path = path
        self.size = len(self._memory) // _BYTES_PER_JOB
        view = memoryview(self._memory)
        self._first = view[: self.size * 8].cast("q")
        self._last = view[self.size * 8 : self.size * 16].cast("q")
        self._runs = view[self.size * 16 :]

    @classmethod
    def create(cls, path: Path, size: int) -> Self:
        """Make a board of `size` places, all empty."""
        with path.open("wb") as file:
            file.truncate(size * _BYTES_PER_JOB)
        return cls(path)

    def mark(self, job: int) -> int:
        """Note a run of `job`; return how many there were before."""
        now = time.monotonic_ns()
        before = self._runs[job]
        if not before:
            self._first[job] = now
        self._last[job] = now
        self._runs[job] = min(before + 1, 255)
        return before

    def runs(self, jobs: range) -> bytes:
        """Return how many times each of `jobs` ran."""
        return bytes(self._runs[jobs.start : jobs.stop])

    def first(self, jobs: range) -> list[int]:
        """Return when each of `jobs` first ran, in nanoseconds; 0 for one that never did."""
        return self._first[jobs.start : jobs.stop].tolist()

    def last(self, jobs: range) -> list[int]:
        """Return when each of `jobs` last ran, in nanoseconds; 0 for one that never did."""
        return self._last[jobs.start : jobs.stop].tolist()


class FailedOnceError(RuntimeError):
    """What the flaky actor raises on its first run."""


_board: Board | None = None


def _shared() -> Board:
    # Opened at the first run: the mapping is shared, so it survives a fork as it is.
    global _board  # noqa: PLW0603
    if _board is None:
        _board = Board(Path(os.environ[BOARD_VARIABLE]))
    return _board


def noop(job: int) -> None:
    """Do nothing but note the run: the body of every contestant's `noop` actor."""
    _shared().mark(job)


def flaky(job: int) -> None:
    """Fail the first time, succeed after: the body of every contestant's `flaky` actor."""
    if _shared().mark(job) == 0:
        raise FailedOnceError(f"job {job} fails once, as it should")
