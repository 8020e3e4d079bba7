"""An actor for schedules whose jobs nobody runs."""

from __future__ import annotations

from leveret import actor


@actor("tick.tock")
def tick(n: int = 0) -> int:
    """Return what it was given."""
    return n
