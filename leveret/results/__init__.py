"""Waiting for what becomes of a job: its changes, its end, its result.

Needs the ledger's database (``leveret[postgres]``) and ``LEVERET_DATABASE_URL``. Who only publishes
needs neither.
"""

from leveret.results.process import Watcher, aresult, close, result, wait
from leveret.results.standing import Ending, Standing
from leveret.results.store import ResultStore
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
