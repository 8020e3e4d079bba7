"""`once_session` and `once_connection`: effects and claim in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from types import TracebackType
from typing import Any, Generic, TypeVar

from sqlalchemy import event, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from leveret import context
from leveret.claims.claim import FENCE, Claim
from leveret.claims.desk import Admission
from leveret.errors import ClaimLost, LeveretError

__all__ = ["Once", "once_connection", "once_session"]

S = TypeVar("S")
A = TypeVar("A")

_FENCE = text(FENCE)


class Once(Generic[S, A]):
    """What `once_session` and `once_connection` return: for ``with``, and for ``async with``."""

    __slots__ = ("_async", "_entered", "_sync")

    def __init__(
        self,
        sync: Callable[[Admission], AbstractContextManager[S]],
        async_: Callable[[Admission], AbstractAsyncContextManager[A]],
    ) -> None:
        self._sync = sync
        self._async = async_
        self._entered: Any = None

    def __enter__(self) -> S:
        self._entered = self._sync(_admission())
        entered: S = self._entered.__enter__()
        return entered

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        suppressed: bool | None = self._entered.__exit__(kind, error, trace)
        return suppressed

    async def __aenter__(self) -> A:
        self._entered = self._async(_admission())
        entered: A = await self._entered.__aenter__()
        return entered

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        suppressed: bool | None = await self._entered.__aexit__(kind, error, trace)
        return suppressed


def once_session() -> Once[Session, AsyncSession]:
    """Return a SQLAlchemy session in which the effects of the running job happen once.

    ::

        with leveret.once_session() as session:
            session.execute(update(Account).values(balance=Account.balance + amount))

    It is a session on LEVERET_CLAIMS_URL (by default LEVERET_DATABASE_URL). Its commit, at the end
    of the block or where the actor commits, also completes the job's claim, in the same
    transaction: both happen or neither. ``async with`` gives an `AsyncSession`, for coroutines.

    There is one transaction: after the commit the session takes no more statements, and the run
    cannot have another. An exception in the block rolls it back; the claim is then still open.

    Raises `ClaimLost` from the commit when another run has taken the claim over (let it pass: that
    run has the effects), and `LeveretError` in a run that has no claim: the actor, or the job, has
    to be ``once``, or to have an idempotency key.
    """
    return Once(_session, _async_session)


def once_connection() -> Once[Connection, AsyncConnection]:
    """Return the same as `once_session`, but a connection of SQLAlchemy Core."""
    return Once(_connection, _async_connection)


def _admission() -> Admission:
    run = context.running.get()
    if run is None:
        raise LeveretError("once_session() belongs into the run of an actor")
    admission = run.admission
    if not isinstance(admission, Admission) or admission.claim is None:
        raise LeveretError(
            f"job {run.job.id} has no claim that once_session() could complete; declare "
            f"{run.job.actor!r} with once=True, or publish the job so"
        )
    _check_open(admission.claim)
    return admission


@contextmanager
def _connection(admission: Admission) -> Iterator[Connection]:
    with admission.engine().connect() as connection:
        _fence(connection, _claim_of(admission))
        yield connection
        if connection.in_transaction():
            connection.commit()
        _over(_claim_of(admission))


@contextmanager
def _session(admission: Admission) -> Iterator[Session]:
    with (
        admission.engine().connect() as connection,
        Session(bind=connection, expire_on_commit=False) as session,
    ):
        _fence(connection, _claim_of(admission))
        yield session
        session.commit()
        _over(_claim_of(admission))


@asynccontextmanager
async def _async_connection(admission: Admission) -> AsyncIterator[AsyncConnection]:
    async with admission.async_engine().connect() as connection:
        _fence(connection.sync_connection, _claim_of(admission))
        yield connection
        if connection.in_transaction():
            await connection.commit()
        _over(_claim_of(admission))


@asynccontextmanager
async def _async_session(admission: Admission) -> AsyncIterator[AsyncSession]:
    async with (
        admission.async_engine().connect() as connection,
        AsyncSession(bind=connection, expire_on_commit=False) as session,
    ):
        _fence(connection.sync_connection, _claim_of(admission))
        yield session
        await session.commit()
        _over(_claim_of(admission))


def _claim_of(admission: Admission) -> Claim:
    if admission.claim is None:
        raise LeveretError("the run has no claim")
    return admission.claim


def _fence(connection: Any, claim: Claim) -> None:
    """Have every commit of a connection complete the claim, and nothing come after it."""

    def complete(connection: Connection) -> None:
        claim.committing = True
        done = connection.execute(
            _FENCE, {"actor": claim.actor, "key": claim.key, "epoch": claim.epoch}
        )
        if done.rowcount != 1:
            claim.lost = True
            # SQLAlchemy holds a commit that raises for one, and would keep the locks of this
            # transaction for as long as the connection is in its pool.
            connection.connection.rollback()
            _check_open(claim)

    def begin(_connection: Connection) -> None:
        _check_open(claim)

    event.listen(connection, "commit", complete)
    event.listen(connection, "begin", begin)


def _over(claim: Claim) -> None:
    """Take note that what has begun to commit has committed."""
    claim.committed = claim.committing


def _check_open(claim: Claim) -> None:
    if claim.lost:
        raise ClaimLost(
            f"another run has taken over the claim of job {claim.job_id} ({claim.actor}, key "
            f"{claim.key!r}), because the lease of this one was over; nothing of this transaction "
            "has happened"
        )
    if claim.committing:
        raise LeveretError(
            f"the claim of job {claim.job_id} is completed by the first commit of once_session(); "
            "put everything that the job writes into that one transaction"
        )
