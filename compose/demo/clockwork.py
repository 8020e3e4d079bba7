"""The schedule of the demonstration, and the schedulers that see to it: one leads, one waits.

When a few of its slots have been fired, the leader is killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from leveret.store.engine import conninfo

if TYPE_CHECKING:
    from compose.demo.pool import Pools

__all__ = ["LEASE_SECONDS", "SCHEDULE", "SCHEDULES", "Beats", "Clockwork"]

SCHEDULE = "heartbeat"
SCHEDULES = Path(__file__).with_name("schedules.toml")
#: A schedulers' term: how long their work may stand still when the leader is killed.
LEASE_SECONDS = 3
_SLOTS_BEFORE = 4

_LEADER = (
    "SELECT holder, (SELECT count(*) FROM schedule_slots WHERE outcome = 'fired') FROM leases"
    " WHERE name = 'scheduler' AND expires_at > clock_timestamp()"
)


@dataclass(frozen=True, kw_only=True)
class Beats:
    """What the history says when it is over."""

    #: The slots, oldest first, as the API shows them.
    slots: Sequence[Mapping[str, Any]]
    #: Process ids: of the leader that was killed, and of the one that leads since.
    killed: int | None
    successor: int | None

    @property
    def missing(self) -> int:
        """How many slots between the first and the last are not there."""
        times = [datetime.fromisoformat(slot["slot"]) for slot in self.slots]
        if not times:
            return 0
        return (times[-1] - times[0]) // timedelta(seconds=1) + 1 - len(set(times))

    @property
    def lateness(self) -> tuple[float, float]:
        """The least and the largest lateness, in seconds."""
        late = [slot["lateness"] for slot in self.slots if slot["lateness"] is not None]
        return (min(late), max(late)) if late else (0.0, 0.0)

    @property
    def succeeded(self) -> dict[str, str]:
        """The jobs that have come to a good end, by id."""
        return {
            slot["job_id"]: slot["job_state"]
            for slot in self.slots
            if slot["job_state"] == "succeeded"
        }


class Clockwork:
    """Watches who leads; `look` is to be called now and then."""

    def __init__(self, database: str, pools: Pools) -> None:
        self._database = psycopg.connect(conninfo(database), autocommit=True)
        self._pools = pools
        self._killed: int | None = None
        self._successor: int | None = None

    def close(self) -> None:
        """Disconnect."""
        self._database.close()

    def look(self) -> str | None:
        """Kill the leader when it is time, and see who takes its place; return what is new."""
        if self._successor is not None:
            return None
        row = self._database.execute(_LEADER).fetchone()
        if row is None:
            return None
        leader, fired = int(row[0].split(":")[1]), row[1]
        if self._killed is None:
            if fired < _SLOTS_BEFORE or not self._pools.kill_main(leader):
                return None
            self._killed = leader
            return f"kill -9 {leader}, the scheduler that leads, after {fired} slots"
        if leader == self._killed:
            return None
        self._successor = leader
        return f"process {leader} leads the schedules now"

    @property
    def is_over(self) -> bool:
        """Whether the leader has been killed, and another leads."""
        return self._successor is not None

    def beats(self, slots: Sequence[Mapping[str, Any]]) -> Beats:
        """Put together what is known at the end; ``slots`` are the oldest first."""
        return Beats(slots=slots, killed=self._killed, successor=self._successor)
