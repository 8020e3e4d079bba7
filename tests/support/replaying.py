"""A process that replays as the relay does, and kills itself at a named point of its third batch.

``python -m tests.support.replaying DATABASE_URL [POINT]``:

==============  ===========================================================================
``claimed``     the batch is locked and decided; nothing is written
``published``   the outbox has its rows, the dead letters and the counts do not know yet
``counted``     all is written; nothing is committed
``committed``   it is committed; nobody has been notified
==============  ===========================================================================
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from sqlalchemy import event

from leveret.deadletters import runner
from leveret.store import engine as make_engine

POINTS = ("claimed", "published", "counted", "committed")
#: Dead letters of a batch.
BATCH = 20
_BATCHES_BEFORE = 2

_batches = 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(engine: Any, point: str) -> None:
    """Replace a step by one that kills in the third batch."""
    plan, carry_out, step = runner._plan, runner._carry_out, runner._step

    def counted_plan(*args: Any) -> Any:
        global _batches  # noqa: PLW0603 - one process, one count
        _batches += 1
        found = plan(*args)
        if point == "claimed" and _batches > _BATCHES_BEFORE:
            _die()
        return found

    def dying_carry_out(*args: Any) -> None:
        if point == "published" and _batches > _BATCHES_BEFORE:
            event.listen(engine, "after_cursor_execute", after_publish)
        carry_out(*args)

    def after_publish(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INSERT INTO leveret_outbox" in statement:
            _die()

    def dying_step(*args: Any) -> Any:
        done = step(*args)
        if point == "counted" and _batches > _BATCHES_BEFORE:
            _die()
        return done

    def dying_notify(*_args: Any) -> None:
        if point == "committed" and _batches > _BATCHES_BEFORE:
            _die()

    runner._plan, runner._carry_out = counted_plan, dying_carry_out
    runner._step, runner.watch.notify = dying_step, dying_notify


def main() -> None:
    """Step until the process is ended."""
    engine = make_engine(sys.argv[1], pool_size=1)
    if len(sys.argv) > 2:
        _arm(engine, sys.argv[2])
    while True:
        time.sleep(min(runner.step(engine, batch=BATCH), 0.1))


if __name__ == "__main__":
    main()
