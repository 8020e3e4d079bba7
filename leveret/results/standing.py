"""Where a job stands, as those who wait for it see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from leveret.ledger.state import State

__all__ = ["Ending", "Standing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What the ledger says of a job that is waited for; equal as long as nothing has changed."""

    job_id: str
    actor: str | None
    queue: str | None
    state: State
    run: int
    attempt: int
    #: Not before this time; when it is retrying or scheduled.
    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    #: From 0 to 1, and what the actor said to it.
    progress: float | None
    progress_note: str | None
    cancel_requested_at: datetime | None
    updated_at: datetime = field(compare=False)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows, unless the job is replayed."""
        return self.state.is_terminal

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Standing:
        """Read a row of ``jobs``."""
        values = {f.name: row[f.name] for f in fields(cls) if f.name not in ("job_id", "state")}
        return cls(job_id=row["id"], state=State(row["state"]), **values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a job has ended."""

    job_id: str
    state: State
    run: int
    attempt: int
    #: What the actor returned, as JSON text.
    result: bytes | None
    #: Where that is kept, if it is large: a path below ``LEVERET_RESULT_STORE``.
    result_ref: str | None
    #: Why it is not kept.
    result_lost: str | None
    reason: str | None
    error_type: str | None
    error: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Ending:
        """Read a row of ``jobs``."""
        values = {f.name: row[f.name] for f in fields(cls) if f.name not in ("job_id", "state")}
        return cls(job_id=row["id"], state=State(row["state"]), **values)
