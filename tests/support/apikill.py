"""A module of "actors" that kills the API between its commit and its answer.

``services.api`` loads it like any module of `LEVERET_ACTORS`. The first request that has published
a job ends the process, once for each folder.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from services.api.context import Context
from tests.support.apis import FOLDER

_run = Context.run


async def _dying_run(self: Context, work: Any, /, *args: Any, **kwargs: Any) -> Any:
    found = await _run(self, work, *args, **kwargs)
    if work.__name__ == "accept":
        try:
            (Path(os.environ[FOLDER]) / "killed").touch(exist_ok=False)
        except FileExistsError:
            return found
        os.kill(os.getpid(), signal.SIGKILL)
    return found


Context.run = _dying_run  # type: ignore[method-assign]
