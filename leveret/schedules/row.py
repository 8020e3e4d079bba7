"""A schedule as a row of the table ``schedules``, and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from leveret.errors import InvalidSchedule
from leveret.message import encode_arguments
from leveret.schedules.definition import Definition
from leveret.schedules.policy import Missed, Overlap
from leveret.schedules.trigger import trigger_of

if TYPE_CHECKING:
    from sqlalchemy.engine import RowMapping

__all__ = ["TRIGGER_COLUMNS", "Row", "StoredSchedule", "definition_of", "stored", "values_of"]

#: A row of ``schedules``, from whatever has read it: values by the names of columns.
Row: TypeAlias = "Mapping[str, Any] | RowMapping"
#: What decides when the slots are due: a change of one of these starts the slots anew.
TRIGGER_COLUMNS = (
    "trigger",
    "expression",
    "timezone",
    "anchor_at",
    "dst_skipped",
    "dst_doubled",
    "jitter_seconds",
    "start_at",
    "end_at",
)
#: Larger than any body: the size has been checked by then.
_CHECKED = 2**31
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSchedule:
    """A schedule as the database has it: what somebody decided, and how far it is."""

    definition: Definition
    #: code (declared next to the actor), file (of declarations) or api (made by somebody).
    origin: str
    #: One more with each change of what somebody has set.
    version: int
    #: Since when its slots are these.
    since: datetime
    #: The slot that was decided on last.
    last_slot: datetime | None
    #: When the job of its next slot is due; None when there is no slot any more.
    next_due_at: datetime | None
    paused_at: datetime | None
    paused_by: str | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str | None

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    @property
    def state(self) -> str:
        """``paused``; ``ended`` when no slot is to come; else ``active``."""
        if self.paused_at is not None:
            return "paused"
        return "active" if self.next_due_at is not None else "ended"


def values_of(definition: Definition) -> dict[str, Any]:
    """Write a definition, which has been checked, as the columns that it decides."""
    trigger = definition.trigger
    return {
        "name": definition.name,
        "description": definition.description,
        "actor": definition.actor,
        "queue": definition.queue,
        "body": encode_arguments(definition.arguments, limit=_CHECKED),
        "options": dict(definition.options) or None,
        "trigger": trigger.kind,
        "expression": trigger.expression,
        "timezone": trigger.zone,
        "anchor_at": None if trigger.anchor == _EPOCH else trigger.anchor,
        "jitter_seconds": definition.jitter.total_seconds(),
        "start_at": definition.start,
        "end_at": definition.end,
        "missed": str(definition.missed),
        "missed_window_seconds": (
            None if definition.window is None else definition.window.total_seconds()
        ),
        "overlap": str(definition.overlap),
        "dst_skipped": str(trigger.skipped),
        "dst_doubled": str(trigger.doubled),
    }


def definition_of(row: Row) -> Definition:
    """Read a definition out of a row of ``schedules``.

    Raises `InvalidSchedule` naming the schedule when the row says what cannot be understood.
    """
    try:
        return Definition(
            name=row["name"],
            actor=row["actor"],
            trigger=trigger_of(
                row["trigger"],
                row["expression"],
                row["timezone"],
                row["anchor_at"],
                row["dst_skipped"],
                row["dst_doubled"],
            ),
            arguments=json.loads(bytes(row["body"])),
            queue=row["queue"],
            options=row["options"] or {},
            jitter=timedelta(seconds=row["jitter_seconds"]),
            start=row["start_at"],
            end=row["end_at"],
            missed=Missed(row["missed"]),
            window=(
                None
                if row["missed_window_seconds"] is None
                else timedelta(seconds=row["missed_window_seconds"])
            ),
            overlap=Overlap(row["overlap"]),
            description=row["description"],
        )
    except (ValueError, OverflowError) as error:
        raise InvalidSchedule(
            "name", row["name"], f"its row cannot be read, so remove or repair it: {error}"
        ) from None


def stored(row: Row) -> StoredSchedule:
    """Read a whole row of ``schedules``; raises `InvalidSchedule` as `definition_of` does."""
    return StoredSchedule(
        definition=definition_of(row),
        **{name: row[name] for name in StoredSchedule.__dataclass_fields__ if name in row},
    )
