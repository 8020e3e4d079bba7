"""Waiting for what becomes of a job: its changes, its end, its result.

Needs the ledger's database (``leveret[postgres]``) and ``LEVERET_DATABASE_URL``. Who only publishes
needs neither, and a worker, which only keeps large results, does not load what waits.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from leveret.extra import brought_by
from leveret.results.standing import Ending, Standing
from leveret.results.store import ResultStore

if TYPE_CHECKING:
    from leveret.results.process import Watcher, aresult, close, result, wait
    from leveret.results.watcher import AsyncWatcher, Changes

__all__ = [
    "AsyncWatcher",
    "Changes",
    "Ending",
    "ResultStore",
    "Standing",
    "Watcher",
    "aresult",
    "close",
    "result",
    "wait",
]

_LAZY = {
    "AsyncWatcher": "leveret.results.watcher",
    "Changes": "leveret.results.watcher",
    **dict.fromkeys(("Watcher", "aresult", "close", "result", "wait"), "leveret.results.process"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'leveret.results' has no attribute {name!r}")
    with brought_by("postgres", f"leveret.results.{name}"):
        return getattr(importlib.import_module(_LAZY[name]), name)
