"""``python -m services.recorder``, which kills itself at a named point.

The point is in `KILL_AT`; at it, each process dies the first `KILL_TIMES` times that any comes
there, counted by files in `KILL_FOLDER`:

==================  =======================================================================
``taken``           a batch has been taken; nothing of it is written
``written``         a batch is in the transaction, which has not been committed
``committed``       the transaction is committed; nothing is acked
==================  =======================================================================
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from leveret.ledger.writer import Writer
from services.recorder.__main__ import main

KILL_AT, KILL_FOLDER, KILL_TIMES = "FAULTS_KILL_AT", "FAULTS_FOLDER", "FAULTS_KILL_TIMES"

_write, _tell = Writer.write, Writer._tell
_write_letters = Writer._write_letters


def _die() -> None:
    """Kill this process, unless enough have been killed here before."""
    for number in range(int(os.environ[KILL_TIMES])):
        try:
            (Path(os.environ[KILL_FOLDER]) / f"killed-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def _dying_write(self: Writer, batch: Any, **options: Any) -> None:
    if batch.jobs:
        _die()
    _write(self, batch, **options)


def _dying_write_letters(self: Writer, cursor: Any, batch: Any, times: Any, **options: Any) -> None:
    _write_letters(self, cursor, batch, times, **options)
    _die()


def _dying_tell(self: Writer, connection: Any, batch: Any) -> None:
    if batch.jobs:
        _die()
    _tell(self, connection, batch)


match os.environ[KILL_AT]:
    case "taken":
        Writer.write = _dying_write  # type: ignore[method-assign]
    case "written":
        Writer._write_letters = _dying_write_letters  # type: ignore[method-assign]
    case "committed":
        Writer._tell = _dying_tell  # type: ignore[method-assign]
    case other:
        raise ValueError(f"{KILL_AT} is {other!r}, not taken, written or committed")

if __name__ == "__main__":
    sys.exit(main())
