"""``leveret``, each time in a process of its own, but without the time that its imports take.

`Commands` starts a process that imports what the commands need, and forks a child for each: with
the environment that is given, and nothing of an earlier command. For tests that run dozens of them;
what is typed at a shell takes most of a second to begin.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from leveret.cli.app import app

ROOT = Path(__file__).parents[2]
#: What commands import when they run.
USED = (
    "leveret.audit",
    "leveret.cli.deadview",
    "leveret.ledger.cancel",
    "leveret.ledger.failing",
    "leveret.ledger.retry",
    "leveret.schedules.backfill",
    "leveret.store",
)


class Commands:
    """Runs commands one after the other; a context manager."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forkedcommands"],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("LEVERET_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], *, timeout: float
    ) -> tuple[int, str]:
        """Run ``leveret`` with these words; return its exit status and all that it has printed.

        Raises `TimeoutError`, and is of no more use after that.
        """
        requests, answers = self._server.stdin, self._server.stdout
        assert requests is not None
        assert answers is not None
        with tempfile.NamedTemporaryFile() as output:
            request = {"words": list(words), "environment": dict(environment), "to": output.name}
            print(json.dumps(request), file=requests, flush=True)
            impatience = threading.Timer(timeout, self._server.kill)
            impatience.start()
            try:
                answer = answers.readline()
            finally:
                impatience.cancel()
            said = Path(output.name).read_text(errors="replace")
        if not answer:
            raise TimeoutError(f"leveret {' '.join(words)}: not within {timeout} s:\n{said}")
        return int(answer), said

    def close(self) -> None:
        """End the process."""
        self._server.kill()
        for stream in (self._server.stdin, self._server.stdout):
            if stream is not None:
                stream.close()
        self._server.wait(20)


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Run each command that is asked for, in a child, and answer with its exit status."""
    for module in USED:
        importlib.import_module(module)
    for line in requests:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            output = os.open(request["to"], os.O_WRONLY | os.O_APPEND)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            os.environ.clear()
            os.environ.update(request["environment"])
            status = 70
            try:
                app(request["words"], prog_name="leveret")
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:  # noqa: BLE001 - it is told, as the interpreter would
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
