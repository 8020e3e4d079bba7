"""Leveret: background jobs on RabbitMQ that lose nothing, remembered in PostgreSQL.

Publishing needs nothing but pika; declaring actors needs ``leveret[worker]``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from leveret.context import current_job
from leveret.errors import LeveretError
from leveret.extra import brought_by
from leveret.message import Job
from leveret.publisher import Publisher, Receipt
from leveret.signals import Dead, Retry, Snooze

if TYPE_CHECKING:
    from leveret.claims.session import once_connection, once_session
    from leveret.declaration import actor
    from leveret.retry import Backoff

__all__ = [
    "Backoff",
    "Dead",
    "Job",
    "LeveretError",
    "Publisher",
    "Receipt",
    "Retry",
    "Snooze",
    "actor",
    "current_job",
    "once_connection",
    "once_session",
]

#: Where the names are that need more than pika, and with what they are installed.
_LAZY = {
    "Backoff": ("leveret.retry", "worker"),
    "actor": ("leveret.declaration", "worker"),
    "once_connection": ("leveret.claims.session", "postgres"),
    "once_session": ("leveret.claims.session", "postgres"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'leveret' has no attribute {name!r}")
    module, extra = _LAZY[name]
    with brought_by(extra, f"leveret.{name}"):
        return getattr(importlib.import_module(module), name)
