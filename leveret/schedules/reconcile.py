"""Making the rows what code and files declare.

A scheduler does it once, when it starts: what is declared and not there is made, what differs is
changed, what is there by code or a file and is not declared any more is removed. Who has paused a
schedule finds it paused still. Schedules made by the API or the command line are left alone; one of
the same name is an error that names both.

An advisory lock of the transaction keeps two at once apart: the second finds what the first has
left. Of two releases that declare different things the one that started last is right.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import or_, select, text
from sqlalchemy.engine import Connection

from leveret.errors import ConfigurationError
from leveret.message import MAX_BODY_BYTES
from leveret.schedules.declared import Declared
from leveret.schedules.row import Row, values_of
from leveret.schedules.write import (
    SCHEDULES,
    database_time,
    differences,
    insert_rows,
    locked,
    remove_rows,
    replace_definition,
)
from leveret.store.schema import Schedule

__all__ = ["Change", "reconcile"]

log = logging.getLogger("leveret.schedules")

#: The advisory lock (of the transaction) under which one process reconciles.
_LOCK = 0x1E7E_5C4D
#: Rows that one statement inserts.
_AT_ONCE = 500
#: What people call the columns, where that is another word.
_CALLED = {"body": "arguments", "jitter_seconds": "jitter", "missed_window_seconds": "window"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What reconciling did, or would do, with one schedule."""

    name: str
    action: Literal["added", "changed", "removed"]
    #: code or file.
    origin: str
    #: What is changed of it.
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Write it for people."""
        what = f": {', '.join(self.fields)}" if self.fields else ""
        return f"schedule {self.name} ({self.origin}) is {self.action}{what}"


def reconcile(
    connection: Connection,
    declared: Mapping[str, Declared],
    *,
    by: str,
    dry_run: bool = False,
    limit: int = MAX_BODY_BYTES,
) -> list[Change]:
    """Make the rows what is declared, in the caller's transaction; return what that changed.

    ``declared`` is by name, as `leveret.schedules.declared.gather` returns it; ``limit`` is the
    largest body of a job. A ``dry_run`` changes nothing. Raises `ConfigurationError` for a name
    that is taken by a schedule of the API's.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    there: dict[str, Row] = {
        row["name"]: row
        for row in connection.execute(
            select(SCHEDULES).where(
                or_(Schedule.origin != "api", Schedule.name.in_(list(declared)))
            )
        ).mappings()
    }
    for name, one in declared.items():
        if name in there and there[name]["origin"] == "api":
            raise _clash(one, there[name]["created_by"])
    changes = list(_changes(declared, there))
    if not dry_run:
        _apply(connection, declared, changes, by=by, limit=limit)
        for change in changes:
            log.info("%s", change)
    return changes


def _changes(declared: Mapping[str, Declared], there: Mapping[str, Row]) -> Iterable[Change]:
    for name, one in sorted(declared.items()):
        row = there.get(name)
        if row is None:
            yield Change(name=name, action="added", origin=one.origin)
            continue
        fields = [_CALLED.get(f, f) for f in differences(row, values_of(one.definition))]
        if row["origin"] != one.origin:
            fields.append("origin")
        if fields:
            yield Change(name=name, action="changed", origin=one.origin, fields=tuple(fields))
    for name, row in sorted(there.items()):
        if name not in declared:
            yield Change(name=name, action="removed", origin=row["origin"])


def _apply(
    connection: Connection,
    declared: Mapping[str, Declared],
    changes: Iterable[Change],
    *,
    by: str,
    limit: int,
) -> None:
    removed = []
    added: dict[str, list[Declared]] = {}
    for change in changes:
        match change.action:
            case "removed":
                removed.append(locked(connection, change.name))
            case "added":
                added.setdefault(change.origin, []).append(declared[change.name])
            case "changed":
                one = declared[change.name]
                row = locked(connection, change.name)
                replace_definition(
                    connection, row, one.definition, origin=one.origin, by=by, limit=limit
                )
    if removed:
        remove_rows(connection, removed, by=by)
    now = database_time(connection)
    for origin, several in added.items():
        for begin in range(0, len(several), _AT_ONCE):
            batch = several[begin : begin + _AT_ONCE]
            made = insert_rows(
                connection, [one.definition for one in batch], origin=origin, by=by, now=now
            )
            if len(made) < len(batch):  # somebody has made one meanwhile
                there = {row["name"] for row in made}
                raise _clash(next(o for o in batch if o.definition.name not in there), "somebody")


def _clash(one: Declared, other: str) -> ConfigurationError:
    return ConfigurationError(
        f"the schedule {one.definition.name!r} is declared {one.where}, and {other} has made "
        "another of that name by the API or the command line; rename one, or remove that one: "
        f"leveret schedules remove {one.definition.name}"
    )
