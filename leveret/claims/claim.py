"""The claim: the right to have the effects of a job, or of all jobs with one key, once.

A broker may deliver a job more than once, and a publisher may publish it more than once. What is
to happen once needs somebody who remembers: one row of the table ``claims`` for each ``(actor,
key)``, where the key is the job's idempotency key or else its id. Nothing of this touches plain
jobs. ::

                        claim: epoch 1                    complete
      (no row) ───────────────────────────► running ───────────────────────► done
                                            │  ▲  ▲
                        the run has failed  │  │  │ its lease is over: epoch + 1
                                            ▼  │  └─┘
                                        released  (claim: epoch + 1)

**Before the run** the worker claims, in one statement. It gets the claim when there is no row, when
the last run was released, or when the lease of the last one is over: then the epoch is one more.
A claim that is *done* ends the job at once: it has succeeded, with the result that is stored. A
claim that *runs elsewhere* puts the job off until that run has ended, without using an attempt.

**During the run** one thread of the process renews the leases of all its claims, at a third of
their term. Every time is the database's own, so that clocks of machines do not matter. A worker
that dies, or cannot reach the database, stops renewing, and the claim is free when the term is
over.

**After the run** the claim is completed, with the result, or released, so that the retry need not
wait for the end of a lease.

**Fencing.** A lease cannot stop a worker that was only asleep (a suspended machine, a long pause)
and goes on after its lease was over, while another run has the claim. What stops it is the epoch:
`once_session` completes the claim *in the transaction that has the effects*, by ``UPDATE … WHERE
epoch = mine AND state = 'running'``. When another run has taken over, the update changes nothing,
`ClaimLost` is raised, and the effects are rolled back ("How to do distributed locking",
M. Kleppmann, 2016). So effects and claim are one: a run that has committed has completed, a crash
at any moment leaves both or neither, and when the answer to the commit is lost, the next delivery
finds out which.

Claiming and releasing do not wait for the disk (``synchronous_commit``): a crash of the database
may forget a claim of the last moment. Then two runs may hold one epoch, and still one of them
commits, since the row is ``running`` only for the first. Completing waits.

Effects outside of that transaction (a mail, a call to another service) can be guarded against
repetition, not made atomic with the claim: a worker that dies between the effect and the completion
repeats it. Give the other side the key.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from leveret.message import storable

if TYPE_CHECKING:
    from leveret.store.connections import Connections

__all__ = ["Busy", "Claim", "Claims", "Done", "Released", "wait_for"]

#: Seconds until the first look whether another run has ended.
_FIRST_LOOK = 0.5

_CLAIM = """
WITH quick AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), made AS (
    INSERT INTO claims
        (actor, key, job_id, state, epoch, worker, lease_until, claimed_at, expires_at)
    SELECT %(actor)s::text, %(key)s::text, %(job)s::text, 'running', 1, %(worker)s::text,
        clock_timestamp() + %(lease)s, clock_timestamp(), clock_timestamp() + %(keep)s
    FROM quick
    ON CONFLICT (actor, key) DO NOTHING
    RETURNING epoch
), free AS (
    -- A row that is locked is being completed or taken over at this moment.
    SELECT actor, key FROM claims
    WHERE actor = %(actor)s AND key = %(key)s
        AND (state = 'released' OR state = 'running'
            AND (lease_until <= clock_timestamp() OR worker = %(worker)s AND %(idle)s))
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE claims SET job_id = %(job)s, state = 'running', epoch = claims.epoch + 1,
        worker = %(worker)s, lease_until = clock_timestamp() + %(lease)s,
        claimed_at = clock_timestamp(), expires_at = clock_timestamp() + %(keep)s
    FROM free WHERE claims.actor = free.actor AND claims.key = free.key
    RETURNING claims.epoch
)
SELECT 'mine', epoch, NULL, NULL::bytea, NULL::float8, NULL::float8 FROM made
UNION ALL
SELECT 'mine', epoch, NULL, NULL, NULL, NULL FROM taken
UNION ALL
SELECT state, epoch, job_id, result,
    extract(epoch FROM lease_until - clock_timestamp())::float8,
    extract(epoch FROM clock_timestamp() - claimed_at)::float8
FROM claims WHERE actor = %(actor)s AND key = %(key)s
    AND NOT EXISTS (SELECT FROM made) AND NOT EXISTS (SELECT FROM taken)
"""
_COMPLETE = """
UPDATE claims SET state = 'done', result = %(result)s, done_at = clock_timestamp(),
    lease_until = NULL
WHERE actor = %(actor)s AND key = %(key)s AND epoch = %(epoch)s AND state IN ('running', 'done')
"""
_RELEASE = """
WITH quick AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), held AS (
    SELECT actor, key FROM claims, quick
    WHERE actor = %(actor)s AND key = %(key)s AND epoch = %(epoch)s AND state = 'running'
    FOR UPDATE OF claims SKIP LOCKED
), freed AS (
    UPDATE claims SET state = 'released', lease_until = NULL
    FROM held WHERE claims.actor = held.actor AND claims.key = held.key
    RETURNING claims.state
)
SELECT state FROM freed
UNION ALL
SELECT CASE WHEN epoch = %(epoch)s THEN state ELSE 'lost' END FROM claims
WHERE actor = %(actor)s AND key = %(key)s AND NOT EXISTS (SELECT FROM freed)
"""
_RENEW = """
WITH held AS (
    SELECT claims.actor, claims.key
    FROM claims JOIN unnest(%(actors)s::text[], %(keys)s::text[], %(epochs)s::bigint[])
        AS mine (actor, key, epoch) USING (actor, key, epoch)
    WHERE state = 'running'
    -- What is locked is being completed, and needs no lease any more.
    FOR UPDATE OF claims SKIP LOCKED
)
UPDATE claims SET lease_until = clock_timestamp() + %(lease)s
FROM held WHERE claims.actor = held.actor AND claims.key = held.key
"""
#: The statement of `once_session`, as SQLAlchemy's ``text`` reads it.
FENCE = """
UPDATE claims SET state = 'done', done_at = clock_timestamp(), lease_until = NULL
WHERE actor = :actor AND key = :key AND epoch = :epoch AND state = 'running'
"""


@dataclass(slots=True)
class Claim:
    """A claim that this process holds."""

    actor: str
    key: str
    job_id: str
    epoch: int
    #: A transaction that completes it has begun to commit.
    committing: bool = False
    #: … and has committed.
    committed: bool = False
    #: Another run has taken it over.
    lost: bool = False

    @property
    def row(self) -> tuple[str, str]:
        """What identifies it."""
        return self.actor, self.key


@dataclass(frozen=True, slots=True)
class Done:
    """The effects have been had by ``job_id``; ``result`` is what was said of its result."""

    job_id: str
    result: bytes | None


@dataclass(frozen=True, slots=True)
class Busy:
    """Another run has the claim."""

    job_id: str
    #: Seconds that its lease still lasts.
    left: float
    #: Seconds since it began.
    ran: float


@dataclass(frozen=True, slots=True)
class Released:
    """What became of a claim that was to be released: released, done, lost, or running.

    ``running`` is a claim whose row is locked: a transaction is completing it.
    """

    state: str


class Claims:
    """The table of claims, as one worker process writes it. Thread-safe.

    Every method is one round trip, bears being repeated, and raises `DatabaseUnavailable`.
    """

    def __init__(
        self, connections: Connections, worker: str, *, lease: timedelta, keep: timedelta
    ) -> None:
        self._connections = connections
        self._worker = worker
        self._lease = lease
        self._keep = keep

    def claim(self, actor: str, key: str, job_id: str, *, idle: bool) -> Claim | Done | Busy:
        """Claim, or tell why not.

        ``idle`` says that no run of this process has the claim: then a claim that is in its name
        was made by a statement whose answer was lost, or could not be released.
        """
        key = storable(key)
        values = {
            "actor": actor,
            "key": key,
            "job": storable(job_id),
            "worker": self._worker,
            "lease": self._lease,
            "keep": self._keep,
            "idle": idle,
        }
        rows: list[tuple[Any, ...]] = []
        while not rows:  # none: the row came, or went, while the statement ran
            rows = self._connections.run(_CLAIM, values)
        state, epoch, owner, result, left, ran = rows[0]
        if state == "mine":
            return Claim(actor, key, job_id, epoch)
        if state == "done":
            return Done(owner, result)
        return Busy(owner, max(0.0, left or 0.0), max(0.0, ran))

    def complete(self, claim: Claim, result: bytes | None) -> bool:
        """Mark a claim done; tell whether it was still this process's."""
        values = {**_mine(claim), "result": result}
        return bool(self._connections.run(_COMPLETE, values)[0][0])

    def release(self, claim: Claim) -> Released:
        """Let the next run claim at once; tell what the claim is then."""
        rows = self._connections.run(_RELEASE, _mine(claim))
        return Released(rows[0][0] if rows else "lost")

    def renew(self, claims: list[Claim]) -> None:
        """Begin the leases of claims anew."""
        values = {
            "actors": [claim.actor for claim in claims],
            "keys": [claim.key for claim in claims],
            "epochs": [claim.epoch for claim in claims],
            "lease": self._lease,
        }
        self._connections.run(_RENEW, values)


def _mine(claim: Claim) -> dict[str, object]:
    return {"actor": claim.actor, "key": claim.key, "epoch": claim.epoch}


def wait_for(busy: Busy, dice: random.Random) -> timedelta:
    """Return how long to put off a job whose claim another run has.

    A run that has just begun may end any moment, one that has lasted long may last on: the wait is
    as long as the run has been so far, but no longer than the lease, which ends if nobody renews
    it. With jitter, so that duplicates do not come back together.
    """
    bound = max(_FIRST_LOOK, min(busy.left, busy.ran))
    return timedelta(seconds=bound * (1 + dice.random() / 4))
