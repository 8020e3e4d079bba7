"""Starting children, watching them, and ending them.

A child tells how it is by a JSON line a second on a pipe, and of the jobs that its metrics are to
point at by further ones. Its standard input is another pipe that
nobody writes to: when the launcher dies, however it dies, the children see it close, and drain.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import IO, Any

import structlog

from leveret.errors import ConfigurationError
from leveret.health import HealthServer
from services.worker.metrics import PoolMetrics
from services.worker.options import Options

__all__ = ["Launcher"]

log = structlog.get_logger("leveret.worker")

#: A child that has said nothing for so long is not alive.
_SILENCE_SECONDS = 15.0
#: A child may take so long to say its first word.
_BOOT_SECONDS = 60.0
#: A child that lived so long is restarted at once.
_STABLE_SECONDS = 10.0
_LONGEST_RESTART_DELAY = 30.0
#: After the grace, a child has so long to say good-bye.
_FAREWELL_SECONDS = 5.0


@dataclass(eq=False)
class Child:
    """One child process, and the next one in its place."""

    name: str
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    status_pipe: IO[bytes] | None = None
    status: dict[str, Any] = field(default_factory=dict)
    heard_at: float = 0.0
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0
    buffer: bytes = b""

    def fault(self, now: float) -> str | None:
        """Say what is wrong with it, if anything is."""
        if self.process is None:
            return f"{self.name} is being restarted" if self.failures > 3 else None
        if not self.status:
            late = now - self.started_at > _BOOT_SECONDS
            return f"{self.name} has not come up" if late else None
        if now - self.heard_at > _SILENCE_SECONDS:
            return f"{self.name} has been silent for {now - self.heard_at:.0f} s"
        faults = self.status.get("faults") or []
        return f"{self.name}: {'; '.join(faults)}" if faults else None


class Launcher:
    """Runs a pool until it is told to stop; `run` returns the exit status."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._metrics = PoolMetrics()
        self._selector = selectors.DefaultSelector()
        self._children = [
            Child(f"process {n}", ["--threads", str(options.threads)])
            for n in range(options.processes)
        ]
        self._lane: Child | None = None
        self._stop_signal: int | None = None
        self._fatal: str | None = None
        self._woken = threading.Event()

    def run(self) -> int:
        """Start the pool and watch it; returns when every child has ended.

        The status is 0 when all running jobs ended within the grace, and 1 when some were cut off.
        """
        drained = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        server = HealthServer(
            self._options.http_host,
            self._options.http_port,
            livez=self.faults,
            readyz=self.is_ready,
            metrics=self._metrics.write,
        )
        try:
            server.start()
            log.info(
                "worker.starting",
                queues=",".join(self._options.queues),
                processes=self._options.processes,
                threads=self._options.threads,
                http=server.address,
            )
            while self._stop_signal is None and self._fatal is None:
                self._supervise()
                self._listen(0.2)
        finally:
            drained = self._drain()
            server.stop()
            self._metrics.remove()
            log.info("worker.stopped", drained=drained)
        if self._fatal is not None:
            raise ConfigurationError(self._fatal)
        return 0 if drained else 1

    # -------------------------------------------------------------------------------------- health

    def faults(self) -> list[str]:
        """Say what is wrong and will not get better by itself."""
        now = time.monotonic()
        return [fault for child in self._children if (fault := child.fault(now)) is not None]

    def is_ready(self) -> bool:
        """Tell whether every child consumes all its queues."""
        return self._stop_signal is None and all(
            child.process is not None and child.status.get("ready") for child in self._children
        )

    # ----------------------------------------------------------------------------------- children

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stop_signal = number

    def _everyone(self) -> list[Child]:
        return self._children if self._lane is None else [*self._children, self._lane]

    def _supervise(self) -> None:
        now = time.monotonic()
        for child in self._everyone():
            process = child.process
            if process is None:
                if now >= child.restart_at:
                    self._start(child)
                continue
            status = process.poll()
            if status is not None:
                self._ended(child, status, now)
        if self._lane is None and any(child.status.get("suspects") for child in self._children):
            self._lane = Child("quarantine lane", ["--lane"])

    def _start(self, child: Child) -> None:
        reader, writer = os.pipe()
        options = self._options
        child.process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [
                sys.executable,
                "-m",
                "services.worker.child",
                *child.arguments,
                *("--queues", ",".join(options.queues)),
                *("--prefetch", str(options.prefetch)),
                *("--grace", str(options.grace)),
                *("--status-fd", str(writer)),
            ],
            stdin=subprocess.PIPE,
            pass_fds=[writer],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": self._metrics.folder},
            start_new_session=False,
        )
        os.close(writer)
        os.set_blocking(reader, False)
        child.status_pipe = os.fdopen(reader, "rb", buffering=0)
        child.status, child.buffer = {}, b""
        child.started_at = child.heard_at = time.monotonic()
        self._selector.register(child.status_pipe, selectors.EVENT_READ, child)

    def _ended(self, child: Child, status: int, now: float) -> None:
        self._read(child)
        process = child.process
        self._metrics.put_away()
        self._close_pipes(child)
        child.process = None
        if self._fatal is not None or self._stop_signal is not None:
            return
        if child is self._lane and status == 0:
            self._lane = None
            return
        lived = now - child.started_at
        child.failures = 0 if lived > _STABLE_SECONDS else child.failures + 1
        delay = 0.0
        if child.failures > 1:
            delay = min(_LONGEST_RESTART_DELAY, 0.5 * 2.0 ** (child.failures - 2))
        child.restart_at = now + delay
        self._metrics.restarts += 1
        log.error(
            "worker.child_died",
            child=child.name,
            pid=None if process is None else process.pid,
            status=_describe(status),
            lived=round(lived, 1),
            restart_in=delay,
        )

    def _close_pipes(self, child: Child) -> None:
        if child.status_pipe is not None:
            self._selector.unregister(child.status_pipe)
            child.status_pipe.close()
            child.status_pipe = None
        if child.process is not None and child.process.stdin is not None:
            child.process.stdin.close()

    def _listen(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            self._read(key.data)

    def _read(self, child: Child) -> None:
        pipe = child.status_pipe
        if pipe is None:
            return
        data = pipe.read(65_536)
        if not data:
            if data == b"":  # the child has closed its end; `_supervise` sees it end
                time.sleep(0.01)
            return
        *lines, child.buffer = (child.buffer + data).split(b"\n")
        for line in lines:
            document = json.loads(line)
            if "exemplars" in document:
                self._metrics.keep(document["exemplars"])
                continue
            child.status = document
            child.heard_at = time.monotonic()
            if child.status.get("fatal"):
                self._fatal = child.status["fatal"]

    def _drain(self) -> bool:
        """Tell every child to drain, end those that do not; tell whether all did by themselves."""
        drained = True
        for child in self._everyone():
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + self._options.grace + _FAREWELL_SECONDS
        for child in self._everyone():
            process = child.process
            if process is None:
                continue
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker.child_killed", child=child.name, pid=process.pid)
                process.kill()
                process.wait()
            drained = drained and process.returncode == 0
            self._close_pipes(child)
        return drained


def _describe(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
