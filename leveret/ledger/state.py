"""The states of a job.

::

    scheduled ──► queued ──► running ──► succeeded | dead | cancelled | expired
                    ▲           │
                    └─ retrying ◄┘
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["LIVE", "State"]


class State(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows, unless the job is replayed."""
        return self not in LIVE


#: The states that something follows.
LIVE = frozenset({State.SCHEDULED, State.QUEUED, State.RUNNING, State.RETRYING})
