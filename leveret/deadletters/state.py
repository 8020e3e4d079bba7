"""The states of a dead letter, and of a replay.

::

    open ──► replaying ──► replayed          running ──► done | cancelled
     │ ▲         │
     │ └─────────┘  refused, or the replay was cancelled
     ├──► discarded
     └──► superseded
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["LetterState", "ReplayState"]


class LetterState(StrEnum):
    """What was done about a dead letter."""

    OPEN = "open"
    #: Claimed by a replay that has not come to it yet.
    REPLAYING = "replaying"
    REPLAYED = "replayed"
    DISCARDED = "discarded"
    #: The job succeeded all the same.
    SUPERSEDED = "superseded"


class ReplayState(StrEnum):
    """How far a replay is."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
