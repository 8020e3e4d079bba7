"""The desk: where a worker process asks whether a job may run, and tells how its run ended.

It needs PostgreSQL only when a job is ``once``, has an idempotency key or is unique, or keeps
checkpoints; until then nothing is imported or connected. While the database is away, such jobs are
put off, without using an attempt.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from leveret.claims.claim import Busy, Claim, Claims, Done, wait_for
from leveret.claims.keeper import Keeper
from leveret.claims.unique import Hold, Uniques, key_of, published_at
from leveret.errors import ConfigurationError, DatabaseUnavailable
from leveret.message import Job, Reason, plain
from leveret.outcome import Cancelled, Dead, Outcome, Quarantine, Retry, Returned, Snooze, Succeeded

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from leveret.checkpoints import Checkpoints
    from leveret.store.connections import Connections

__all__ = ["Admission", "Desk", "needs_admission"]

log = logging.getLogger("leveret.claims")

#: The largest result that is kept with a claim, as in outcome records.
_MAX_RESULT_BYTES = 64 * 1024
#: Seconds that a job is put off while the database is away, at first and at most.
_FIRST_AWAY, _LONGEST_AWAY = 1.0, 30.0

_encode = json.JSONEncoder(separators=(",", ":"), default=plain, allow_nan=False).encode


def needs_admission(job: Job, *, once: bool) -> bool:
    """Tell whether a job has to be asked for, or is a plain one; ``once`` is its actor's word."""
    return once or job.once or job.idempotency_key is not None or job.is_unique


class Admission:
    """A run that was let in: its claim, and what it is unique in."""

    __slots__ = ("_desk", "claim", "hold", "job")

    def __init__(self, desk: Desk, job: Job, hold: Hold | None, claim: Claim | None) -> None:
        self._desk = desk
        self.job = job
        self.hold = hold
        self.claim = claim

    def engine(self) -> Engine:
        """Return the engine of the database that has the claim."""
        return self._desk.engine()

    def async_engine(self) -> AsyncEngine:
        """Return the same for coroutines."""
        return self._desk.async_engine()

    def leave(self, outcome: Outcome) -> Outcome:
        """Tell how the run ended; return what follows from it, given what became of the claim."""
        if self.claim is not None:
            outcome = self._desk.settle(self.claim, outcome)
        if self.hold is not None:
            self._desk.unhold(self.hold, outcome)
        return outcome


class Desk:
    """Admits the runs of one worker process. Thread-safe; connects when it is first needed.

    :param database_url: the database with Leveret's tables: unique jobs, checkpoints, the ledger.
    :param claims_url: the one with the table of claims, where the effects of jobs are.
    :param lease: how long a claim lasts when nobody renews it.
    :param keep: how long a claim is remembered.
    """

    def __init__(
        self,
        worker: str,
        *,
        database_url: str | None,
        claims_url: str | None = None,
        lease: timedelta = timedelta(seconds=30),
        keep: timedelta = timedelta(days=30),
        threads: int = 8,
        dice: random.Random | None = None,
    ) -> None:
        self._worker = worker
        self._database_url = database_url
        self._claims_url = claims_url or database_url
        self._lease = lease
        self._keep = keep
        self._threads = threads
        self._dice = dice or random.Random()  # noqa: S311 - jitter
        self._lock = threading.Lock()
        #: The claims that are being asked for, and who waits for that.
        self._asking: set[tuple[str, str]] = set()
        self._asked = threading.Condition(self._lock)
        self._connections: dict[str, Connections] = {}
        self._claims: Claims | None = None
        self._uniques: Uniques | None = None
        self._checkpoints: Checkpoints | None = None
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: What this process holds.
        self._held: dict[tuple[str, str], Claim] = {}
        self._holds: dict[tuple[str, str], Hold] = {}
        self.keeper = Keeper(self._renew, lease.total_seconds() / 3)

    def check(self, once: Iterable[str]) -> None:
        """Raise `ConfigurationError` when there are actors that are once, and no way to be."""
        for actor in once:
            try:
                self.claims()
            except ConfigurationError as error:
                raise ConfigurationError(f"the actor {actor!r} is once: {error}") from None

    # --------------------------------------------------------------------------- before the run

    def admit(self, job: Job, timestamp: object, *, once: bool) -> Admission | Outcome:
        """Let a job in, or tell what becomes of it instead.

        ``timestamp`` is the job's AMQP timestamp, ``once`` whether its actor is.
        """
        try:
            hold: Hold | None = None
            if job.is_unique:
                found = self._hold(job, timestamp)
                if isinstance(found, str):
                    return Cancelled(found)
                hold = found
            if not (once or job.once or (hold is None and job.idempotency_key is not None)):
                return Admission(self, job, hold, None)
            # The key of a unique job says what it is unique in: it may run again, later.
            key = job.id if hold is not None else job.idempotency_key or job.id
            claim = self._claim(job, key)
        except DatabaseUnavailable as error:
            return self._put_off(error)
        except ConfigurationError as error:
            return Dead(Reason.NO_DATABASE, error)
        if isinstance(claim, Claim):
            return Admission(self, job, hold, claim)
        if hold is not None:
            self.unhold(hold, claim)
        return claim

    def _hold(self, job: Job, timestamp: object) -> Hold | str:
        published = published_at(job, timestamp, datetime.now(UTC))
        hold = self.uniques().start(job, key_of(job), published)
        if isinstance(hold, Hold):
            with self._lock:
                self._holds[hold.actor, hold.key] = hold
            self.keeper.start()
        return hold

    def _claim(self, job: Job, key: str) -> Claim | Outcome:
        claims = self.claims()
        row = (job.actor, key)
        # One thread at a time: of two that ask together, one would take the other for a run that
        # ended without a trace, and take its claim over.
        with self._asked:
            self._asked.wait_for(lambda: row not in self._asking)
            self._asking.add(row)
            idle = row not in self._held
        found: Claim | Done | Busy | None = None
        try:
            found = claims.claim(job.actor, key, job.id, idle=idle)
        finally:
            with self._asked:
                if isinstance(found, Claim):
                    self._held[row] = found
                self._asking.discard(row)
                self._asked.notify_all()
        match found:
            case Claim():
                self.keeper.start()
                return found
            case Done(owner, result):
                return replace(_recall(result), done_by=None if owner == job.id else owner)
            case Busy():
                return Snooze(
                    wait_for(found, self._dice),
                    f"job {found.job_id} has the claim, and runs"
                    if found.job_id != job.id
                    else "another run of the job has the claim",
                )

    def _put_off(self, error: DatabaseUnavailable) -> Snooze:
        away = max((c.away_seconds for c in self._connections.values()), default=0.0)
        bound = min(_LONGEST_AWAY, max(_FIRST_AWAY, away / 2))
        return Snooze(
            timedelta(seconds=bound * (1 + self._dice.random() / 2)),
            f"the database cannot be asked for it: {error}",
        )

    # --------------------------------------------------------------------------- after the run

    def settle(self, claim: Claim, outcome: Outcome) -> Outcome:
        """Complete or release a claim; return the outcome that its state allows."""
        try:
            if isinstance(outcome, Succeeded):
                return self._complete(claim, outcome)
            return self._release(claim, outcome)
        except Exception:
            log.exception("the claim of job %s (%s) ends with its lease", claim.job_id, claim.actor)
            return self._elsewhere() if claim.committing else outcome
        finally:
            with self._lock:
                if self._held.get(claim.row) is claim:
                    del self._held[claim.row]

    def _complete(self, claim: Claim, outcome: Succeeded) -> Outcome:
        if claim.lost:
            return self._elsewhere()
        result = _remember(outcome)
        if claim.committed and result is None:
            return outcome
        try:
            ours = self.claims().complete(claim, result)
        except DatabaseUnavailable:
            # It has run, and running again would not undo that: the claim follows when it can.
            self.keeper.defer(lambda: self.claims().complete(claim, result))
            return outcome
        return outcome if ours else self._elsewhere()

    def _release(self, claim: Claim, outcome: Outcome) -> Outcome:
        if claim.lost:
            return self._elsewhere()
        try:
            state = self.claims().release(claim).state
        except DatabaseUnavailable:
            self.keeper.defer(lambda: self.claims().release(claim))
            # Whether the commit has happened is for the next delivery to find out.
            return self._elsewhere() if claim.committing else outcome
        match state:
            case "released":
                return outcome
            case "done":
                log.warning(
                    "job %s (%s) has failed after the commit of its once_session(); its effects "
                    "are there, so it has succeeded: %s",
                    claim.job_id,
                    claim.actor,
                    _error_of(outcome),
                )
                return Succeeded()
        return self._elsewhere()

    def _elsewhere(self) -> Snooze:
        """Put off a job whose outcome another run decides, or has decided."""
        return Snooze(
            timedelta(seconds=1 + self._dice.random()), "its claim was taken over by another run"
        )

    def unhold(self, hold: Hold, outcome: Outcome) -> None:
        """Tell what became of a job that stood for its key."""
        row = (hold.actor, hold.key)
        with self._lock:
            if self._holds.get(row) is hold:
                del self._holds[row]

        def tell() -> None:
            match outcome:
                case Succeeded():
                    self.uniques().done(hold)
                case Retry(delay) | Snooze(delay):
                    self.uniques().wait(hold, delay)
                case Returned() | Quarantine():
                    self.uniques().wait(hold, timedelta(0))
                case _:
                    self.uniques().free(hold)

        try:
            tell()
        except DatabaseUnavailable:
            self.keeper.defer(tell)
        except Exception:
            log.exception("unique job %s (%s) is believed to run on", hold.job_id, hold.actor)

    # ------------------------------------------------------------------------- on its own thread

    def _renew(self) -> None:
        with self._lock:
            claims = list(self._held.values())
            holds = list(self._holds.values())
        if claims:
            self.claims().renew(claims)
        if holds:
            self.uniques().renew(holds)

    def forget_checkpoint(self, job_id: str) -> None:
        """Delete the checkpoint of a job that has succeeded; returns at once."""
        self.keeper.defer(lambda: self.checkpoints().forget([job_id]))

    def close(self) -> None:
        """Say what is left to say, and disconnect."""
        self.keeper.close()
        for connections in self._connections.values():
            connections.close()
        if self._engine is not None:
            self._engine.dispose()
        if self._async_engine is not None and self._loop is not None and self._loop.is_running():
            done = asyncio.run_coroutine_threadsafe(self._async_engine.dispose(), self._loop)
            done.result(5.0)

    # ------------------------------------------------------------------------------ the databases

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Return the checkpoint of a job; see `leveret.checkpoints`."""
        return self.checkpoints().read(job_id)

    def write(self, job_id: str, data: Mapping[str, Any]) -> None:
        """Replace the checkpoint of a job; see `leveret.checkpoints`."""
        self.checkpoints().write(job_id, data)

    def checkpoints(self) -> Checkpoints:
        """Return the table of checkpoints; raises `ConfigurationError`."""
        if self._checkpoints is None:
            connections = self._connect(self._database_url, "checkpoints")
            from leveret.checkpoints import Checkpoints  # noqa: PLC0415 - needs psycopg

            self._checkpoints = Checkpoints(connections)
        return self._checkpoints

    def claims(self) -> Claims:
        """Return the table of claims; raises `ConfigurationError`."""
        if self._claims is None:
            connections = self._connect(self._claims_url, "claims")
            self._claims = Claims(connections, self._worker, lease=self._lease, keep=self._keep)
        return self._claims

    def uniques(self) -> Uniques:
        """Return the table of unique jobs; raises `ConfigurationError`."""
        if self._uniques is None:
            connections = self._connect(self._database_url, "unique jobs")
            self._uniques = Uniques(connections, lease=self._lease, keep=self._keep)
        return self._uniques

    def _connect(self, url: str | None, what: str) -> Connections:
        if url is None:
            raise ConfigurationError(
                f"{what} are kept in PostgreSQL, and LEVERET_DATABASE_URL is not set; set it for "
                "the worker, such as postgresql://user:password@host:5432/leveret"
            )
        try:
            from leveret.store.connections import Connections  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                f"{what} are kept in PostgreSQL, and {error.name or 'psycopg'!r} is missing; "
                "install leveret[postgres]"
            ) from None
        with self._lock:
            if url not in self._connections:
                self._connections[url] = Connections(url, application="leveret worker")
            return self._connections[url]

    def engine(self) -> Engine:
        """Return the engine on the database that has the claims, for effects of jobs."""
        from leveret.store import engine  # noqa: PLC0415 - needs SQLAlchemy

        with self._lock:
            if self._engine is None:
                self._engine = engine(
                    self._claims_url or "",
                    pool_size=max(1, self._threads),
                    application="leveret worker (once)",
                )
            return self._engine

    def async_engine(self) -> AsyncEngine:
        """Return the same for the loop that calls; a worker has one for all its coroutines."""
        from leveret.store import async_engine  # noqa: PLC0415 - needs SQLAlchemy

        with self._lock:
            if self._async_engine is None:
                self._loop = asyncio.get_running_loop()
                self._async_engine = async_engine(
                    self._claims_url or "",
                    pool_size=max(1, self._threads),
                    application="leveret worker (once)",
                )
            return self._async_engine


def _remember(outcome: Succeeded) -> bytes | None:
    """Write a result, where it is, or why it is lost, as a claim keeps it; None for no result."""
    if outcome.ref is not None:
        return _encode({"ref": outcome.ref}).encode()
    if outcome.lost is not None:
        return _encode({"lost": outcome.lost}).encode()
    if outcome.result is None:
        return None
    try:
        text = _encode({"result": outcome.result}).encode()
    except Exception:  # noqa: BLE001 - a result may fail at being read in any way
        return b'{"lost":"JSON cannot write it"}'
    if len(text) > _MAX_RESULT_BYTES:
        return b'{"lost":"it has %d bytes; %d are the limit"}' % (len(text), _MAX_RESULT_BYTES)
    return text


def _recall(text: bytes | None) -> Succeeded:
    """Read what `_remember` has written."""
    return Succeeded(**({} if text is None else json.loads(text)))


def _error_of(outcome: Outcome) -> str:
    match outcome:
        case Retry(_, error) | Dead(_, error):
            return f"{type(error).__name__}: {error}"
    return type(outcome).__name__
