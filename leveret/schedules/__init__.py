"""Schedules: when which job is published, again and again.

What a schedule is (`Schedule` next to an actor, `Definition` inside), which moments are its slots,
and what is kept of it in the database. It fires nothing by itself: that is the part of `scheduler`,
which holds the lease.
"""

from leveret.schedules.declaration import Schedule
from leveret.schedules.policy import Doubled, Missed, Overlap, Skipped
from leveret.schedules.trigger import At, Cron, Every

__all__ = ["At", "Cron", "Doubled", "Every", "Missed", "Overlap", "Schedule", "Skipped"]
