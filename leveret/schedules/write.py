"""What every change of a schedule has in common: the lock, the version, the entry, the notice.

For `leveret.schedules.store`, which explains it, and `leveret.schedules.reconcile`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from leveret.errors import InvalidSchedule, UnknownSchedule
from leveret.message import MAX_BODY_BYTES
from leveret.schedules.check import check
from leveret.schedules.definition import Definition
from leveret.schedules.passed import passed
from leveret.schedules.row import TRIGGER_COLUMNS, Row, StoredSchedule, stored, values_of
from leveret.store import audit_log
from leveret.store.schema import Schedule, ScheduleSlot

__all__ = [
    "CHANNEL",
    "SCHEDULES",
    "begun_anew",
    "database_time",
    "differences",
    "insert_rows",
    "locked",
    "next_due",
    "notify",
    "record",
    "refuse_if_never",
    "remove_rows",
    "replace_definition",
    "told",
    "update_row",
]

#: Where changes are told; the payload is the schedule's name.
CHANNEL = "leveret_schedules"

SCHEDULES = Schedule.__table__
#: Columns whose values are nobody's business but the job's.
_UNTOLD = frozenset({"body", "options"})
#: What a form calls the expression of each kind of trigger.
_FIELDS = {"cron": "cron", "interval": "every", "date": "at"}
_NOW = select(func.clock_timestamp())
_NOTIFY = text("SELECT pg_notify(:channel, name) FROM unnest(CAST(:names AS text[])) AS name")


def database_time(connection: Connection) -> datetime:
    """Return the time by the database's clock."""
    found: datetime = connection.execute(_NOW).scalar_one()
    return found


def notify(connection: Connection, names: Collection[str]) -> None:
    """Tell whoever listens that these schedules have changed, once the transaction commits."""
    connection.execute(_NOTIFY, {"channel": CHANNEL, "names": list(names)})


def next_due(definition: Definition, after: datetime) -> datetime | None:
    """Return when the job of the first slot later than ``after`` is due; None without one."""
    slot = next(definition.slots(after), None)
    return None if slot is None else definition.due(slot)


def refuse_if_never(definition: Definition, now: datetime) -> None:
    """Raise `InvalidSchedule` when no slot is later than ``now``."""
    if next(definition.slots(now), None) is None:
        raise InvalidSchedule(
            _FIELDS[definition.trigger.kind],
            definition.trigger.expression,
            f"it would never fire: there is no slot after {now:%Y-%m-%d %H:%M:%S} UTC",
        )


def insert_rows(
    connection: Connection,
    definitions: Sequence[Definition],
    *,
    origin: str,
    by: str,
    now: datetime,
    address: str | None = None,
) -> Sequence[Row]:
    """Write definitions that have been checked; return the rows of those that were not there."""
    rows = (
        connection.execute(
            insert(Schedule).on_conflict_do_nothing().returning(SCHEDULES),
            [
                {
                    **values_of(definition),
                    "origin": origin,
                    "since": now,
                    "next_due_at": next_due(definition, now),
                    "created_by": by,
                    "created_at": now,
                    "updated_at": now,
                }
                for definition in definitions
            ],
        )
        .mappings()
        .all()
    )
    audit_log.record_many(
        connection,
        who=by,
        action="schedule.create",
        targets={row["name"]: {"origin": origin, **told(row)} for row in rows},
        address=address,
    )
    notify(connection, [row["name"] for row in rows])
    return rows


def replace_definition(
    connection: Connection,
    row: Row,
    definition: Definition,
    *,
    origin: str,
    by: str,
    limit: int = MAX_BODY_BYTES,
    address: str | None = None,
) -> StoredSchedule:
    """Do what `change` does with a row that is locked, whatever its origin: for `reconcile`."""
    check(definition, limit=limit)
    if definition.name != row["name"]:
        raise InvalidSchedule(
            "name", definition.name, f"a schedule keeps its name, which is {row['name']!r}"
        )
    values = values_of(definition)
    changed = differences(row, values)
    if origin != row["origin"]:
        changed["origin"] = (row["origin"], origin)
    if not changed:
        return stored(row)
    now = database_time(connection)
    anew: dict[str, Any] = {}
    if changed.keys() & set(TRIGGER_COLUMNS):
        anew = begun_anew(connection, row, definition, now, reason="changed")
        if origin == "api":
            refuse_if_never(definition, now)
    new = update_row(connection, row["name"], by, now, {**values, **anew, "origin": origin})
    detail = {
        field: ("changed" if field in _UNTOLD else [_text(old), _text(newer)])
        for field, (old, newer) in changed.items()
    }
    told_of = {"version": new["version"], "changed": detail}
    record(connection, row["name"], "change", by, told_of, address=address)
    return stored(new)


def remove_rows(
    connection: Connection, rows: Sequence[Row], *, by: str, address: str | None = None
) -> None:
    """Remove schedules whose rows are locked, whatever their origin: for `reconcile`."""
    names = [row["name"] for row in rows]
    connection.execute(delete(Schedule).where(Schedule.name.in_(names)))
    # Nobody will ever ask for these again.
    connection.execute(
        update(ScheduleSlot)
        .where(ScheduleSlot.schedule.in_(names), ScheduleSlot.outcome == "queued")
        .values(outcome="skipped", reason="removed")
    )
    for row in rows:
        detail = {"origin": row["origin"], **told(row)}
        record(connection, row["name"], "remove", by, detail, address=address)
    notify(connection, names)


def differences(row: Row, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the columns in which a row is not what ``values`` say, and both of each."""
    found = {}
    for column, new in values.items():
        old = row[column]
        same = json.loads(bytes(old)) == json.loads(new) if column == "body" else old == new
        if not same:
            found[column] = (old, new)
    return found


def locked(connection: Connection, name: str) -> Row:
    """Return a row, and keep others from changing it; raises `UnknownSchedule`."""
    wanted = select(SCHEDULES).where(Schedule.name == name).with_for_update()
    row = connection.execute(wanted).mappings().first()
    if row is None:
        raise UnknownSchedule(name)
    return row


def update_row(
    connection: Connection, name: str, by: str, now: datetime, values: Mapping[str, Any]
) -> Row:
    """Change a row that is locked; count it, and tell it."""
    row = (
        connection.execute(
            update(Schedule)
            .where(Schedule.name == name)
            .values({**values, "version": Schedule.version + 1})
            .values(updated_at=now, updated_by=by)
            .returning(SCHEDULES)
        )
        .mappings()
        .one()
    )
    notify(connection, [name])
    return row


def begun_anew(
    connection: Connection,
    row: Row,
    definition: Definition,
    now: datetime,
    *,
    reason: str,
) -> dict[str, Any]:
    """Begin the slots of a schedule at ``now``; record those that had passed undecided."""
    old = stored(row)
    after = old.last_slot or old.since
    taken = connection.scalars(
        select(ScheduleSlot.slot).where(
            ScheduleSlot.schedule == old.name, ScheduleSlot.slot > after, ScheduleSlot.slot <= now
        )
    ).all()
    skipped = [
        {
            "schedule": old.name,
            "slot": run.first,
            "until": None if run.first == run.last else run.last,
            "count": run.count,
            "outcome": "skipped",
            "reason": reason,
            "due_at": old.definition.due(run.first),
        }
        for run in passed(old.definition, after, now, frozenset(taken))
    ]
    if skipped:
        connection.execute(insert(ScheduleSlot).on_conflict_do_nothing(), skipped)
    return {"since": now, "last_slot": None, "next_due_at": next_due(definition, now)}


def told(row: Row) -> dict[str, Any]:
    """Return what the audit log says of a schedule: what it is, without its arguments."""
    return {
        "actor": row["actor"],
        "trigger": row["trigger"],
        "expression": row["expression"],
        "timezone": row["timezone"],
    }


def _text(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def record(
    connection: Connection,
    name: str,
    verb: str,
    by: str,
    detail: Mapping[str, Any],
    *,
    address: str | None = None,
) -> None:
    """Write ``schedule.<verb>`` into the audit log; ``address`` is that of a client."""
    audit_log.record(
        connection,
        who=by,
        action=f"schedule.{verb}",
        target=name,
        detail=detail,
        address=address,
    )
