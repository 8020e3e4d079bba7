"""What a schedule does where there is a choice."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Doubled", "Missed", "Overlap", "Skipped"]


class Missed(StrEnum):
    """What becomes of slots that passed while no scheduler led."""

    #: None of them is fired.
    SKIP = "skip"
    #: The latest is fired.
    ONCE = "once"
    #: Each is fired.
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of a slot while the job of an earlier one has not ended, as the ledger says."""

    #: It is fired all the same.
    ALLOW = "allow"
    #: It is not fired.
    SKIP = "skip"
    #: It is fired when that one has ended.
    QUEUE = "queue"


class Skipped(StrEnum):
    """What becomes of a wall-clock time that daylight saving leaves out."""

    #: There is no slot.
    SKIP = "skip"
    #: The slot is the first moment after the gap.
    NEXT = "next"


class Doubled(StrEnum):
    """What becomes of a wall-clock time that daylight saving has twice."""

    #: The slot is the first of the two.
    FIRST = "first"
    #: Both are slots.
    BOTH = "both"
