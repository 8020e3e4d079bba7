"""Waiting for what becomes of a job: its changes, its end, its result.

Needs the ledger's database (``leveret[postgres]``). Who only publishes needs none of it.
"""

from leveret.results.standing import Ending, Standing
from leveret.results.watcher import AsyncWatcher, Changes

__all__ = ["AsyncWatcher", "Changes", "Ending", "Standing"]
