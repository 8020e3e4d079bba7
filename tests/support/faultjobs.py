"""Actors for the fault tests, which write down when they start and when they end.

The journal is a file to which each entry is appended in one write, so that it survives any death of
the process. Gates are files, too: `probe.hold` runs until its gate is there.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import leveret
from leveret.broker import get_broker

#: The variable that names the folder of the journal and the gates.
FOLDER = "FAULTS_FOLDER"
QUICK = leveret.Backoff(base=timedelta(seconds=0.3), jitter=False)
_GATE_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    event: str
    job_id: str
    attempt: int
    pid: int


class Journal:
    """What the actors of one folder have written down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "journal"

    def write(self, event: str) -> None:
        """Append an entry about the running job."""
        job = leveret.current_job()
        assert job is not None
        line = f"{event} {job.id} {job.attempt} {os.getpid()}\n".encode()
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)

    def entries(self, event: str) -> list[Entry]:
        """Return the entries of one event."""
        try:
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            return []
        words = [line.split() for line in lines]
        return [Entry(w[0], w[1], int(w[2]), int(w[3])) for w in words if w[0] == event]

    def starts(self) -> Counter[str]:
        """Count the starts of each job."""
        return Counter(entry.job_id for entry in self.entries("start"))

    def started_again(self) -> dict[str, int]:
        """Return the jobs that have started more than once, with the count."""
        return {job_id: count for job_id, count in self.starts().items() if count > 1}

    def starts_by_attempt(self) -> Counter[tuple[str, int]]:
        """Count the starts of each attempt of each job."""
        return Counter((entry.job_id, entry.attempt) for entry in self.entries("start"))

    def ends(self) -> Counter[str]:
        """Count the runs of each job that came to their end."""
        return Counter(entry.job_id for entry in self.entries("end"))

    def running(self) -> set[str]:
        """Return the jobs that have started more often than they have ended."""
        starts, ends = self.starts(), self.ends()
        return {job_id for job_id, count in starts.items() if count > ends[job_id]}

    def open_gate(self, name: str) -> None:
        """Let the jobs go that hold at this gate."""
        (self.folder / f"gate-{name}").touch()

    def wait_at_gate(self, name: str) -> None:
        """Return when the gate is open."""
        gate = self.folder / f"gate-{name}"
        while not gate.exists():
            time.sleep(_GATE_POLL_SECONDS)


def journal() -> Journal:
    """Return the journal that this process writes."""
    return Journal(Path(os.environ[FOLDER]))


@leveret.actor("probe.run", backoff=QUICK)
def run(n: int = 0, seconds: float = 0.0) -> int:
    """Run through, in ``seconds``."""
    journal().write("start")
    time.sleep(seconds)
    journal().write("end")
    return n


@leveret.actor("probe.hold", backoff=QUICK)
def hold(n: int = 0, gate: str = "gate") -> int:
    """Run until the gate is open."""
    journal().write("start")
    journal().wait_at_gate(gate)
    journal().write("end")
    return n


@leveret.actor("probe.fail_once", backoff=QUICK)
def fail_once(n: int = 0) -> int:
    """Fail the first attempt."""
    journal().write("start")
    if leveret.current_job().attempt == 1:
        raise ConnectionError("the first attempt fails")
    journal().write("end")
    return n


@leveret.actor("probe.die", backoff=QUICK)
def die(n: int = 0) -> int:
    """Kill the process that runs it."""
    journal().write("start")
    os.kill(os.getpid(), signal.SIGKILL)
    return n


@leveret.actor("probe.refuse", backoff=QUICK)
def refuse(n: int = 0) -> int:
    """Ask to become a dead letter."""
    journal().write("start")
    raise leveret.Dead("no retry can help")


@leveret.actor("probe.deaf", time_limit=timedelta(seconds=0.2), max_retries=0)
def deaf(n: int = 0, seconds: float = 60.0) -> int:
    """Stay in a system call, where no time limit reaches it."""
    journal().write("start")
    time.sleep(seconds)
    return n


@leveret.actor("probe.spawn", backoff=QUICK)
def spawn(count: int = 1) -> None:
    """Publish so many jobs."""
    journal().write("start")
    get_broker().publisher.publish_many((run, {"n": n}) for n in range(count))
    journal().write("end")


#: Which queue the topology binds each actor to.
ACTORS = {
    actor.actor_name: actor.queue_name for actor in (run, hold, fail_once, die, refuse, deaf, spawn)
}
