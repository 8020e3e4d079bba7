"""What came of somebody's wish for one job, such as to cancel it or to run it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from sqlalchemy.engine import Connection

from leveret.ledger import watch
from leveret.ledger.state import State
from leveret.store import audit_log

__all__ = ["Answer", "conclude"]

OutcomeT = TypeVar("OutcomeT", bound=StrEnum)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(ABC, Generic[OutcomeT]):
    """What came of it."""

    job_id: str
    outcome: OutcomeT
    #: Where the job stands now; None when the ledger does not know it.
    state: State | None
    #: In which run.
    run: int
    #: In words.
    detail: str

    @property
    @abstractmethod
    def is_accepted(self) -> bool:
        """Whether it comes true."""


def conclude(
    connection: Connection, answer: Answer[OutcomeT], *, action: str, by: str, address: str | None
) -> None:
    """Write into ``audit_log`` what ``by`` wanted, also when it is refused; notify who waits.

    In the caller's transaction, in which the wish was granted.
    """
    audit_log.record(
        connection,
        who=by,
        action=action,
        target=answer.job_id,
        outcome="done" if answer.is_accepted else "refused",
        detail={"outcome": answer.outcome, "run": answer.run, "state": answer.state},
        address=address,
    )
    if answer.is_accepted:
        watch.notify(connection, [answer.job_id])
