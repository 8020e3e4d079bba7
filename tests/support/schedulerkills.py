"""A scheduler that kills or stops itself at a named point, once for each folder.

``python -m tests.support.schedulerkills`` is ``python -m scheduler`` but for that. The point is in
`POINT`, the folder in `FOLDER`, and what happens there in `HOW`, the name of a signal:

===========  =================================================================================
``fire``     it has decided what to fire, and asked its own clock; the statement is not sent
``fired``    the statement has been carried out; nobody knows in this process
``renewal``  a third of the term is over; the renewal is not sent
===========  =================================================================================

`UNFENCED` takes the check of the lease out of the statement: what it is for shows without it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler import fire as statement
from scheduler.__main__ import main
from scheduler.candidate import Candidate
from scheduler.executor import FiringExecutor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leveret.store.lease import Grant
    from scheduler.fire import Fired, Plan

POINTS = ("fire", "fired", "renewal")
POINT = "SCHEDULER_STOP_AT"
FOLDER = "SCHEDULER_STOP_FOLDER"
HOW = "SCHEDULER_STOP_HOW"
UNFENCED = "SCHEDULER_UNFENCED"


def reach(point: str) -> None:
    """Signal this process at its point, unless one has been signalled in its folder before."""
    if os.environ.get(POINT) != point:
        return
    try:
        (Path(os.environ[FOLDER]) / point).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.Signals[os.environ.get(HOW, "SIGKILL")])
    # Another thread may be the one to take the signal, which stops this one a little later.
    time.sleep(0.5)


_fire, _renew = FiringExecutor.fire, Candidate.renew


def _fire_reached(self: FiringExecutor, plans: Sequence[Plan]) -> Fired:
    reach("fire")
    fired = _fire(self, plans)
    reach("fired")
    return fired


def _renew_reached(self: Candidate, epoch: int) -> Grant | None:
    reach("renewal")
    return _renew(self, epoch)


if __name__ == "__main__":
    FiringExecutor.fire = _fire_reached  # type: ignore[method-assign]
    Candidate.renew = _renew_reached  # type: ignore[method-assign]
    if UNFENCED in os.environ:
        before = statement._FIRE
        statement._FIRE = before.replace("WHERE EXISTS (SELECT FROM lease)", "WHERE true").replace(
            "AND s.last_slot IS NOT DISTINCT FROM p.read", ""
        )
        assert before != statement._FIRE
    sys.exit(main())
