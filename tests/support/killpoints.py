"""A module of "actors" that kills its worker at a named point between a run and its ack.

A child of the worker loads it like any module of `LEVERET_ACTORS`. It replaces two steps of the
settler by ones that look, and kill the process when the point in `FAULTS_KILL_AT` is reached, once
for each folder:

==================  =======================================================================
``run-ended``       the actor has returned; no record has been published
``settled``         everything that follows is confirmed; the ack has not been sent
==================  =======================================================================
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from leveret.worker.settlement import Settler
from tests.support.faultjobs import FOLDER

POINT = "FAULTS_KILL_AT"


def die_once() -> None:
    """Kill this process, unless one has been killed here before."""
    try:
        (Path(os.environ[FOLDER]) / "killed").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


_submit, _post_settled = Settler.submit, Settler.post_settled


def _dying_submit(self: Settler, delivery: Any, outcome: Any) -> None:
    die_once()
    _submit(self, delivery, outcome)


def _dying_post_settled(self: Settler, group: Any) -> None:
    if group.items and group.open_posts == 1:
        die_once()
    _post_settled(self, group)


match os.environ.get(POINT):
    case "run-ended":
        Settler.submit = _dying_submit  # type: ignore[method-assign]
    case "settled":
        Settler.post_settled = _dying_post_settled  # type: ignore[method-assign]
    case other:
        raise ValueError(f"{POINT} is {other!r}, not run-ended or settled")
