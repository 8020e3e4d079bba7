"""Who changed what, or tried to: the table ``audit_log``."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import insert

from leveret.store.schema import AuditEntry

if TYPE_CHECKING:
    from sqlalchemy import Insert
    from sqlalchemy.engine import Connection

__all__ = ["at_terminal", "entry", "record"]

Outcome = Literal["done", "refused"]


def entry(
    *,
    who: str,
    action: str,
    target: str | None = None,
    outcome: Outcome = "done",
    detail: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> Insert:
    """Return the statement that writes one entry, for connections of either kind.

    ``who`` is ``key:<id>`` or what `at_terminal` returns, ``action`` a noun and a verb such as
    ``job.cancel``. Never give it arguments of jobs, or secrets.
    """
    return insert(AuditEntry).values(
        who=who,
        action=action,
        target=target,
        outcome=outcome,
        detail=None if detail is None else dict(detail),
        address=address,
    )


def record(
    connection: Connection,
    *,
    who: str,
    action: str,
    target: str | None = None,
    outcome: Outcome = "done",
    detail: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> None:
    """Write one entry in the caller's transaction, so that it is true if the change is."""
    connection.execute(
        entry(
            who=who, action=action, target=target, outcome=outcome, detail=detail, address=address
        )
    )


def at_terminal() -> str:
    """Name the person at this terminal: ``cli:<user>@<host>``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"cli:{user}@{socket.gethostname()}"
