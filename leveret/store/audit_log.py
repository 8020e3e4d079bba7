"""Who changed what, or tried to: one row for every change and every refusal.

Only writing, and reading back. The row stands in the caller's transaction, so that a change and its
entry are one: neither is there without the other.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Insert, insert, select
from sqlalchemy.engine import Connection

from leveret.store.schema import AuditEntry

__all__ = ["Entry", "entries", "entry", "operator", "record", "record_many"]

_LONGEST = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the log."""

    id: int
    at: datetime
    #: ``key:<id>`` or ``cli:<user>@<host>``.
    who: str
    #: A noun and a verb: ``job.cancel``, ``key.revoke``.
    action: str
    target: str | None
    #: ``done`` or ``refused``.
    outcome: str
    detail: Mapping[str, Any] | None
    address: str | None


def record(
    connection: Connection,
    *,
    who: str,
    action: str,
    target: str | None = None,
    outcome: str = "done",
    detail: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> None:
    """Write one entry, in the caller's transaction.

    ``detail`` must be writable as JSON, and hold no secret and no argument of a job. Texts are cut
    at 500 characters, and lose the character that PostgreSQL cannot keep.
    """
    connection.execute(
        entry(
            who=who, action=action, target=target, outcome=outcome, detail=detail, address=address
        )
    )


def record_many(
    connection: Connection,
    *,
    who: str,
    action: str,
    targets: Mapping[str, Mapping[str, Any]],
    address: str | None = None,
) -> None:
    """Write an entry for each of ``targets``, with its detail, as `record` does, at once."""
    rows = [
        {
            "who": _clean(who),
            "action": _clean(action),
            "target": _clean(target),
            "outcome": "done",
            "detail": dict(detail),
            "address": None if address is None else _clean(address),
        }
        for target, detail in targets.items()
    ]
    if rows:
        connection.execute(insert(AuditEntry), rows)


def entry(
    *,
    who: str,
    action: str,
    target: str | None = None,
    outcome: str = "done",
    detail: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> Insert:
    """Return the statement that `record` executes, for connections of the other kind."""
    return insert(AuditEntry).values(
        who=_clean(who),
        action=_clean(action),
        target=None if target is None else _clean(target),
        outcome=outcome,
        detail=None if detail is None else dict(detail),
        address=None if address is None else _clean(address),
    )


def entries(connection: Connection, *, before: int | None = None, limit: int = 50) -> list[Entry]:
    """Return the newest entries, those older than the entry ``before`` if that is given."""
    wanted = select(AuditEntry.__table__).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(AuditEntry.id < before)
    return [Entry(**row) for row in connection.execute(wanted).mappings()]


def operator() -> str:
    """Return who sits at this command line, as the log names them."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"cli:{user}@{socket.gethostname()}"


def _clean(text: str) -> str:
    return text[:_LONGEST].encode(errors="replace").decode().replace("\x00", "\ufffd")
