"""Start processes that outlive us, and find and end them again.

A process is found by a mark in its environment, which its children inherit, and not by a number
in a file: a number can be stale and belong to somebody else by now, and a file can be lost.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from compose.native.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compose.native.accounts import Account

#: The environment variable whose value names what a process belongs to.
MARK = "LEVERET_STACK"
_PROC = Path("/proc")
_POLL_SECONDS = 0.05
#: How often, and how far apart, to look at a process that shows no environment.
_EXECVE_POLLS, _EXECVE_SECONDS = 5, 0.001


def spawn(
    argv: Sequence[str],
    *,
    mark: str,
    env: Mapping[str, str],
    log: Path,
    account: Account,
    cwd: Path,
) -> None:
    """Start `argv` in a session of its own, marked, with its output appended to `log`.

    The process is not our child: it neither dies with us nor leaves a zombie behind.
    """
    setsid = shutil.which("setsid")
    if setsid is None or not _PROC.is_dir():
        raise StackError(
            "private servers need Linux with util-linux: start Docker, or set LEVERET_AMQP_URL "
            "and LEVERET_DATABASE_URL to servers that exist"
        )
    with log.open("ab") as output:
        subprocess.run(
            [setsid, "--fork", *argv],
            env={**env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            user=account.uid,
            group=account.gid,
            extra_groups=None if account.uid is None else [],
            check=True,
        )


def marked(mark: str) -> dict[int, str]:
    """Return the live processes with this mark: process id to program name."""
    wanted = f"{MARK}={mark}".encode()
    found: dict[int, str] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in _environment(entry).split(b"\0"):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue  # it has ended meanwhile, or is somebody else's
    return found


def _environment(process: Path) -> bytes:
    """Return the environment of a process, which is empty also while it replaces its program.

    Linux has none to show in the midst of an `execve`; it has no program, either, of a zombie or
    a thread of its own (`FileNotFoundError`).
    """
    for _ in range(_EXECVE_POLLS):
        found = (process / "environ").read_bytes()
        if found:
            return found
        (process / "exe").readlink()
        time.sleep(_EXECVE_SECONDS)
    return b""


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end(mark: str, *, grace_seconds: float) -> None:
    """End every process with this mark: SIGTERM first, SIGKILL after the grace."""
    send(list(marked(mark)), signal.SIGTERM)
    if not wait_until(lambda: not marked(mark), timeout_seconds=grace_seconds):
        kill(mark)


def kill(mark: str) -> None:
    """End every process with this mark at once, and return when none is left."""
    if not wait_until(lambda: not _killed(mark), timeout_seconds=10):
        raise StackError(f"these processes do not end, even killed: {marked(mark)}")


def _killed(mark: str) -> list[int]:
    pids = list(marked(mark))
    send(pids, signal.SIGKILL)
    return pids


def wait_reaped(pids: Sequence[int], *, timeout_seconds: float = 10.0) -> None:
    """Wait until init has removed these ended processes from the list; it can take seconds."""
    wait_until(
        lambda: not any((_PROC / str(pid)).exists() for pid in pids),
        timeout_seconds=timeout_seconds,
    )


def wait_until(predicate: Callable[[], bool], *, timeout_seconds: float) -> bool:
    """Wait until the predicate holds; return whether it did within the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while not predicate():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
