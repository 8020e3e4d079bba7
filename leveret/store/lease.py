"""A lease: the right of one process to do something alone, for a term, by the database's clock.

**The protocol.** One row of ``leases`` for each thing that is done alone: who has it (``holder``),
how often it has changed hands (``epoch``), and until when (``expires_at``).

==========  =======================================================================================
take        whoever finds the lease expired writes itself into it, with the epoch plus one. Of many
            who try at once the row's lock lets one through, and the others see that it has
renew       the holder, at a third of the term, moves ``expires_at`` to now plus the term; but only
            while the lease is still its own and has not expired
act         each statement that acts has, in itself, a condition that the lease is the actor's, of
            its epoch, and not expired, and locks the lease's row against being taken (`FENCE`).
            So the check and the act are one: no pause of the process can come between them
resign      the holder lets the lease expire now, and tells it on the channel, so that whoever
            waits for it need not wait for the term
==========  =======================================================================================

A holder that dies is replaced within one term. One that is stopped, or cut off, and wakes later has
an old epoch: what it sends is refused.

**What each clock is trusted for.**

- *The database's* (``clock_timestamp()``, never ``now()``, which is the time when the transaction
  began): for everything that must be right. It alone says when a lease ends. There is one, it is
  the same for all who compete, and the row's lock orders those who read it. If it jumps ahead, a
  lease ends too early and is taken by another: the epoch keeps the first from acting. If it jumps
  back, a dead holder is replaced later, by as much.
- *A process's own, that only counts seconds* (``CLOCK_BOOTTIME``, which counts those of a suspended
  machine, too): for stopping in time without asking, and nothing else. A term is counted from
  before the request for it was sent, and ends a margin early, so that the process stops before the
  database can have given the lease to another. A process that is wrong here is refused by the
  database all the same; it has only asked in vain.
- *A process's wall clock*: for nothing.

Statements, each complete in itself: they work in autocommit mode and through PgBouncer, and whoever
is stopped between two of them holds no lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

__all__ = ["FENCE", "Grant", "Held", "Lease", "Runner", "elapsed_seconds"]

#: What a statement that acts begins with: a CTE of one row while the lease is the actor's, and of
#: none otherwise. The row stays locked against `take` until the statement has been committed.
FENCE = """\
lease AS MATERIALIZED (
    SELECT epoch FROM leases
    WHERE name = %(lease)s AND holder = %(holder)s AND epoch = %(epoch)s
      AND expires_at > clock_timestamp()
    FOR SHARE
)"""

# To look costs no lock. Who takes it from itself has lost the answer to an earlier try.
_TAKE = """\
WITH taken AS (
    INSERT INTO leases AS l (name, holder, epoch, acquired_at, expires_at)
    SELECT %(lease)s, %(holder)s, 1, clock_timestamp(), clock_timestamp() + %(term)s
    WHERE NOT EXISTS (
        SELECT FROM leases
        WHERE name = %(lease)s AND holder <> %(holder)s AND expires_at > clock_timestamp()
    )
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, epoch = l.epoch + 1, acquired_at = clock_timestamp(),
        expires_at = clock_timestamp() + %(term)s
    WHERE l.expires_at <= clock_timestamp() OR l.holder = excluded.holder
    RETURNING epoch
)
SELECT (SELECT epoch FROM taken), holder,
    extract(epoch FROM expires_at - clock_timestamp())::float8, clock_timestamp()
FROM (SELECT 1) AS one LEFT JOIN leases ON name = %(lease)s"""
_RENEW = """\
UPDATE leases SET expires_at = clock_timestamp() + %(term)s
WHERE name = %(lease)s AND holder = %(holder)s AND epoch = %(epoch)s
  AND expires_at > clock_timestamp()
RETURNING clock_timestamp()"""
_RESIGN = """\
WITH ended AS (
    UPDATE leases SET expires_at = clock_timestamp()
    WHERE name = %(lease)s AND holder = %(holder)s AND epoch = %(epoch)s
      AND expires_at > clock_timestamp()
    RETURNING name
)
SELECT pg_notify(%(channel)s, 'lease') FROM ended"""

#: The share of a term by which a holder stops early.
_MARGIN = 0.1
_RENEWALS = 3

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_seconds() -> float:
    """Return the seconds since some moment, those of a suspended machine included."""
    return time.clock_gettime(_CLOCK)


class Runner(Protocol):
    """Runs statements, each for itself."""

    def run(self, statement: str, values: Mapping[str, Any], /) -> list[tuple[Any, ...]]:
        """Run a statement in autocommit mode, and return its rows."""
        ...


@dataclass(frozen=True, slots=True)
class Grant:
    """The lease is ours."""

    epoch: int
    #: Until when, by `elapsed_seconds`; after that it may be somebody else's.
    deadline: float


@dataclass(frozen=True, slots=True)
class Held:
    """The lease is somebody else's."""

    holder: str
    #: Seconds until it ends, unless it is renewed.
    remaining: float


class Lease:
    """One process's way to a lease. Thread-safe as far as its ``Runner`` is.

    ``holder`` is unique to the process, even among those that had its name or number before.
    Whatever the ``Runner`` raises is passed on; nothing is known then about the lease. ``observe``
    is told the database's time in each answer, and when it was asked for by ``clock``.
    """

    def __init__(
        self,
        runner: Runner,
        name: str,
        *,
        holder: str,
        term: timedelta,
        clock: Callable[[], float] = elapsed_seconds,
        observe: Callable[[datetime, float], None] = lambda _at, _asked: None,
    ) -> None:
        self.name = name
        self.holder = holder
        self.term = term
        self._runner = runner
        self._clock = clock
        self._observe = observe

    @property
    def renewal_seconds(self) -> float:
        """How long to wait between two renewals."""
        return self.term.total_seconds() / _RENEWALS

    def take(self) -> Grant | Held:
        """Take the lease if nobody has it."""
        asked = self._clock()
        ((epoch, holder, remaining, now),) = self._runner.run(_TAKE, self._values())
        self._observe(now, asked)
        if epoch is not None:
            return Grant(epoch, self._deadline(asked))
        # Without a row, somebody took it for the first time after this statement began.
        return Held(holder or "", self.term.total_seconds() if remaining is None else remaining)

    def renew(self, epoch: int) -> Grant | None:
        """Begin another term; None when the lease has ended, or is somebody else's."""
        asked = self._clock()
        rows = self._runner.run(_RENEW, self._values(epoch))
        if not rows:
            return None
        self._observe(rows[0][0], asked)
        return Grant(epoch, self._deadline(asked))

    def resign(self, epoch: int, *, channel: str) -> None:
        """End the term now, and tell it with the payload ``lease``."""
        self._runner.run(_RESIGN, {**self._values(epoch), "channel": channel})

    def fence(self, epoch: int) -> dict[str, Any]:
        """Return the parameters of `FENCE`."""
        return {"lease": self.name, "holder": self.holder, "epoch": epoch}

    def _deadline(self, asked: float) -> float:
        return asked + self.term.total_seconds() * (1 - _MARGIN)

    def _values(self, epoch: int | None = None) -> dict[str, Any]:
        return {"lease": self.name, "holder": self.holder, "epoch": epoch, "term": self.term}
