"""What Leveret has to do for itself again and again, as jobs on schedules of their own.

The actors are declared in every process that loads actors (`leveret.housekeeping.actors`), and
their schedules are fired, listed and paused like any other. What they do with the database is in
the modules beside it: roll-ups, sweeping; retention is `leveret.store.retention`. It has no part
in running jobs: without it, pages lack numbers and tables grow, and no job is lost.
"""

from __future__ import annotations

from leveret.housekeeping.actors import BEAT, CHECK, declare, is_housekeeping

__all__ = ["BEAT", "CHECK", "declare", "is_housekeeping"]
