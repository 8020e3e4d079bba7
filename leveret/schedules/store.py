"""Schedules in the database: made, changed, paused, resumed, removed, read.

Everything happens in the caller's transaction, on the row's lock, so that of two changes at once
the later one sees the earlier. Each change is counted in ``version`` (who fires a slot says which
version it has read, and is refused when there is a newer one), is written into the audit log, and
is told on the channel ``leveret_schedules``. ``by`` is who wants it, as the audit log names them,
and ``address`` that of the client.

Times are the database's. Which slots are a schedule's own is counted from ``since``: when it was
made, when what decides on its slots was changed, or when it was resumed. Slots that nobody had
decided on by then are recorded as skipped, and why: they neither vanish nor come back.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.engine import Connection

from leveret.errors import ScheduleDeclared, ScheduleExists
from leveret.message import MAX_BODY_BYTES
from leveret.schedules.check import check
from leveret.schedules.definition import Definition
from leveret.schedules.row import Row, StoredSchedule, stored
from leveret.schedules.write import (
    CHANNEL,
    SCHEDULES,
    begun_anew,
    database_time,
    insert_rows,
    locked,
    next_due,
    record,
    refuse_if_never,
    remove_rows,
    replace_definition,
    update_row,
)
from leveret.store.schema import Schedule

__all__ = [
    "CHANNEL",
    "change",
    "create",
    "database_time",
    "get",
    "listing",
    "next_due",
    "pause",
    "remove",
    "resume",
    "rows",
]


# ------------------------------------------------------------------------------------------ reading


def get(connection: Connection, name: str, *, lock: bool = False) -> StoredSchedule | None:
    """Return a schedule; None when there is none of that name.

    ``lock`` keeps others from changing it until the transaction ends: for who reads it in order
    to change it.
    """
    wanted = select(SCHEDULES).where(Schedule.name == name)
    row = connection.execute(wanted.with_for_update() if lock else wanted).mappings().first()
    return None if row is None else stored(row)


def listing(
    connection: Connection,
    *,
    actor: str | None = None,
    origin: str | None = None,
    paused: bool | None = None,
    after: str | None = None,
    limit: int = 500,
) -> list[StoredSchedule]:
    """Return schedules by their names, those behind the name ``after``, at most ``limit``.

    Raises `InvalidSchedule` when one of the rows cannot be read.
    """
    found = rows(connection, actor=actor, origin=origin, paused=paused, after=after, limit=limit)
    return [stored(row) for row in found]


def rows(
    connection: Connection,
    *,
    actor: str | None = None,
    origin: str | None = None,
    paused: bool | None = None,
    after: str | None = None,
    limit: int = 500,
) -> Sequence[Row]:
    """Return the same as `listing`, not read yet: for who goes on behind one that cannot be."""
    wanted = select(SCHEDULES).order_by(Schedule.name).limit(limit)
    if actor is not None:
        wanted = wanted.where(Schedule.actor == actor)
    if origin is not None:
        wanted = wanted.where(Schedule.origin == origin)
    if paused is not None:
        wanted = wanted.where(
            Schedule.paused_at.is_not(None) if paused else Schedule.paused_at.is_(None)
        )
    if after is not None:
        wanted = wanted.where(Schedule.name > after)
    return connection.execute(wanted).mappings().all()


# ----------------------------------------------------------------------------------------- changing


def create(
    connection: Connection,
    definition: Definition,
    *,
    origin: str = "api",
    by: str,
    limit: int = MAX_BODY_BYTES,
    address: str | None = None,
) -> StoredSchedule:
    """Make a schedule; its slots are those from now on.

    ``limit`` is the largest body of a job. Raises `InvalidSchedule`, and `ScheduleExists` when
    there is one of that name.
    """
    check(definition, limit=limit)
    now = database_time(connection)
    if origin == "api":
        refuse_if_never(definition, now)
    made = insert_rows(connection, [definition], origin=origin, by=by, now=now, address=address)
    if not made:
        there = connection.scalar(select(Schedule.origin).where(Schedule.name == definition.name))
        raise ScheduleExists(definition.name, there or "api")
    return stored(made[0])


def change(
    connection: Connection,
    name: str,
    definition: Definition,
    *,
    by: str,
    limit: int = MAX_BODY_BYTES,
    address: str | None = None,
) -> StoredSchedule:
    """Make of a schedule what ``definition`` says; return it. What is the same changes nothing.

    Raises `UnknownSchedule`, `InvalidSchedule`, and `ScheduleDeclared` for one that code or a file
    says. It keeps its name, and stays paused if it is.
    """
    row = locked(connection, name)
    if row["origin"] != "api":
        raise ScheduleDeclared(name, row["origin"])
    return replace_definition(
        connection, row, definition, origin="api", by=by, limit=limit, address=address
    )


def pause(
    connection: Connection, name: str, *, by: str, address: str | None = None
) -> StoredSchedule:
    """Fire no slot of a schedule until it is resumed; twice is harmless.

    Raises `UnknownSchedule`.
    """
    row = locked(connection, name)
    if row["paused_at"] is not None:
        return stored(row)
    now = database_time(connection)
    new = update_row(connection, name, by, now, {"paused_at": now, "paused_by": by})
    record(connection, name, "pause", by, {"version": new["version"]}, address=address)
    return stored(new)


def resume(
    connection: Connection, name: str, *, by: str, address: str | None = None
) -> StoredSchedule:
    """Fire the slots of a schedule from now on; those that passed while it paused are skipped.

    Raises `UnknownSchedule`; one that is not paused stays as it is.
    """
    row = locked(connection, name)
    if row["paused_at"] is None:
        return stored(row)
    now = database_time(connection)
    anew = begun_anew(connection, row, stored(row).definition, now, reason="paused")
    new = update_row(connection, name, by, now, {**anew, "paused_at": None, "paused_by": None})
    record(connection, name, "resume", by, {"version": new["version"]}, address=address)
    return stored(new)


def remove(connection: Connection, name: str, *, by: str, address: str | None = None) -> None:
    """Remove a schedule; what it did stays known.

    Raises `UnknownSchedule`, and `ScheduleDeclared` for one that code or a file says.
    """
    row = locked(connection, name)
    if row["origin"] != "api":
        raise ScheduleDeclared(name, row["origin"])
    remove_rows(connection, [row], by=by, address=address)
