"""Which dead letters: a filter, as people write it and as a replay remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, false

from leveret.deadletters.state import LetterState
from leveret.store.schema import DeadLetter

__all__ = ["Selection"]


#: Ids are smaller.
_END = 2**63


def _can_be_stored(value: object) -> bool:
    """Tell whether PostgreSQL can have a text; no row has one that it cannot."""
    if not isinstance(value, str):
        return True
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A filter of dead letters: all that are given must hold; without any, it is all of them."""

    ids: tuple[int, ...] | None = None
    fingerprint: str | None = None
    job_id: str | None = None
    actor: str | None = None
    queue: str | None = None
    reason: str | None = None
    #: Words of the error, in any case.
    error: str | None = None
    #: Dead at this time or later.
    since: datetime | None = None
    #: Dead before this time.
    until: datetime | None = None
    #: What a replay or a discard takes is open, whatever stands here.
    state: LetterState | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is asked for, but a state maybe."""
        return all(getattr(self, f.name) is None for f in fields(self) if f.name != "state")

    def conditions(self) -> list[ColumnElement[bool]]:
        """Write the filter as conditions on `DeadLetter`."""
        if not all(map(_can_be_stored, (getattr(self, f.name) for f in fields(self)))):
            return [false()]
        found: list[ColumnElement[bool]] = []
        if self.ids is not None:
            found.append(DeadLetter.id.in_([n for n in self.ids if 0 < n < _END]))
        for name in ("fingerprint", "job_id", "actor", "queue", "reason", "state"):
            value = getattr(self, name)
            if value is not None:
                found.append(getattr(DeadLetter, name) == str(value))
        if self.error is not None:
            found.append(DeadLetter.error.icontains(self.error, autoescape=True))
        if self.since is not None:
            found.append(DeadLetter.dead_at >= self.since)
        if self.until is not None:
            found.append(DeadLetter.dead_at < self.until)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Write what is given, as JSON."""
        shown: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, tuple):
                value = list(value)
            if value is not None:
                shown[field.name] = value
        return shown

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        values = dict(document)
        if "ids" in values:
            values["ids"] = tuple(values["ids"])
        if "state" in values:
            values["state"] = LetterState(values["state"])
        for name in ("since", "until"):
            if name in values:
                values[name] = datetime.fromisoformat(values[name])
        return cls(**values)
