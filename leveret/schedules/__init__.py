"""Schedules: when which job is published, again and again.

What a schedule is (`Definition`), which moments are its slots, and what is kept of it in the
database. It fires nothing: that is the part of `scheduler`, which holds the lease.
"""

from leveret.schedules.policy import Doubled, Missed, Overlap, Skipped
from leveret.schedules.trigger import At, Cron, Every

__all__ = ["At", "Cron", "Doubled", "Every", "Missed", "Overlap", "Skipped"]
