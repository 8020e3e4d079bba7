"""Firing the slots of a time that is past and for which nothing was published.

``plan`` says which those are: the slots that the schedule, as it is today, has in a range, without
those that were fired, or wait for an earlier job. ``backfill`` fires them, as many as are allowed
or none; who wants to show how far it is fires the plan in parts (``fire``). No scheduler is needed
for it, and none is disturbed: a slot has one row, whoever is first.

**Slots that nobody has decided on**, because no scheduler leads, can be fired, too. As far as they
are the next ones, the schedule's ``last_slot`` moves on behind them, as if a scheduler had fired
them: so the first slot that a scheduler has to decide on never has a row. For that the schedule's
row is locked, before the rows of slots are, as a scheduler does it.

**Skipped slots.** One row stands for slots in a row that were skipped. Where one of them is fired
now, that row counts one less, and where its first one is, it begins with the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from leveret.errors import BackfillRefused, UnknownSchedule
from leveret.schedules.definition import Definition, job_id
from leveret.schedules.row import StoredSchedule
from leveret.schedules.run import Fired, columns, publish
from leveret.schedules.store import get
from leveret.schedules.write import database_time, next_due, notify, record
from leveret.store.schema import Schedule, ScheduleSlot

__all__ = ["LIMIT", "MOST", "Plan", "backfill", "fire", "plan"]

#: Slots that a backfill fires at most, unless it is told otherwise; and the most it can be told.
LIMIT = 100
MOST = 10_000
#: So many slots of a range are looked at, fired ones included.
_MOST_SEEN = 100_000

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a backfill would fire."""

    definition: Definition
    start: datetime
    end: datetime
    #: At most as many as the limit.
    slots: tuple[datetime, ...]
    #: Slots of the range that were fired before, as far as it was looked through.
    fired: int
    #: Whether there are more than the limit.
    more: bool

    @property
    def jobs(self) -> Iterator[Fired]:
        """The slots, with the ids that their jobs will have."""
        return (Fired(slot=slot, job_id=job_id(self.definition.name, slot)) for slot in self.slots)


def plan(
    connection: Connection, name: str, *, start: datetime, end: datetime, limit: int = LIMIT
) -> Plan:
    """Return what a backfill from ``start`` to ``end``, both included, would fire.

    Raises `UnknownSchedule`, and `BackfillRefused` for a range that is empty, too long to be
    looked through, or not past.
    """
    _refuse_unless(
        1 <= limit <= MOST, "too-many", f"a backfill's limit is 1 to {MOST:,} slots, not {limit}"
    )
    _refuse_unless(start <= end, "empty-range", f"the range ends ({end}) before it begins")
    found = get(connection, name)
    if found is None:
        raise UnknownSchedule(name)
    now = database_time(connection)
    _refuse_unless(
        end <= now,
        "future",
        f"what is to come is the scheduler's: the range ends at {_show(end)}, and it is "
        f"{_show(now)}",
    )
    taken = _taken(connection, name, start, end)
    slots: list[datetime] = []
    fired = 0
    more = False
    for seen, slot in enumerate(found.definition.slots(start - _MILLISECOND)):
        if slot > end:
            break
        _refuse_unless(
            seen < _MOST_SEEN,
            "too-many",
            f"the range has more than {_MOST_SEEN:,} slots; choose a shorter one",
        )
        if slot in taken:
            fired += 1
        elif len(slots) < limit:
            slots.append(slot)
        else:
            more = True
            break
    return Plan(
        definition=found.definition,
        start=start,
        end=end,
        slots=tuple(slots),
        fired=fired,
        more=more,
    )


def backfill(
    connection: Connection,
    name: str,
    *,
    start: datetime,
    end: datetime,
    limit: int = LIMIT,
    by: str,
    address: str | None = None,
) -> list[Fired]:
    """Fire the slots of a range for which nothing was published; return them.

    In the caller's transaction, all or none. Raises what `plan` raises, and `BackfillRefused` when
    they are more than ``limit``.
    """
    _lock(connection, name)
    planned = plan(connection, name, start=start, end=end, limit=limit)
    refuse_if_more(planned)
    return fire(connection, planned, planned.slots, by=by, address=address)


def refuse_if_more(planned: Plan) -> None:
    """Raise `BackfillRefused` when the limit does not cover the range."""
    _refuse_unless(
        not planned.more,
        "too-many",
        f"there are more than {len(planned.slots):,} slots from {_show(planned.start)} to "
        f"{_show(planned.end)}; choose a shorter range, or a higher limit (at most {MOST:,})",
    )


def fire(
    connection: Connection,
    planned: Plan,
    slots: Sequence[datetime],
    *,
    by: str,
    address: str | None = None,
) -> list[Fired]:
    """Fire slots of a plan, a part of it or all; return those that nobody else has fired.

    One entry in the audit log tells of them.
    """
    definition = planned.definition
    if not slots:
        return []
    _lock(connection, definition.name)
    undecided = _undecided(connection, definition.name, max(slots))
    _free(connection, definition, slots)
    rows = [
        columns(definition, slot, cause="backfill", by=by, due=definition.due(slot))
        for slot in slots
    ]
    made = set(
        connection.execute(
            insert(ScheduleSlot).on_conflict_do_nothing().returning(ScheduleSlot.slot), rows
        ).scalars()
    )
    fired = [slot for slot in slots if slot in made]
    publish(connection, definition, fired)
    if undecided is not None:
        _move_on(connection, undecided)
    if fired:
        record(
            connection,
            definition.name,
            "backfill",
            by,
            {
                "from": planned.start.isoformat(),
                "to": planned.end.isoformat(),
                "slots": len(fired),
                "first": fired[0].isoformat(),
                "last": fired[-1].isoformat(),
            },
            address=address,
        )
    return [Fired(slot=slot, job_id=job_id(definition.name, slot)) for slot in fired]


def _lock(connection: Connection, name: str) -> None:
    """Keep two backfills of one schedule apart, and nobody else."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('leveret:backfill:' || :name, 0))"),
        {"name": name},
    )


def _undecided(connection: Connection, name: str, last: datetime) -> StoredSchedule | None:
    """Return the schedule, and lock it, if ``last`` is a slot that was not decided on."""
    found = get(connection, name)
    if found is None or last <= (found.last_slot or found.since):
        return None
    return get(connection, name, lock=True)


def _move_on(connection: Connection, found: StoredSchedule) -> None:
    """Put ``last_slot`` behind the next slots that have been fired."""
    after = last = found.last_slot or found.since
    taken = set(
        connection.scalars(
            select(ScheduleSlot.slot).where(
                ScheduleSlot.schedule == found.name, ScheduleSlot.slot > after
            )
        )
    )
    for slot in found.definition.slots(after):
        if slot not in taken:
            break
        last = slot
    if last > after:
        connection.execute(
            update(Schedule)
            .where(Schedule.name == found.name)
            .values(last_slot=last, next_due_at=next_due(found.definition, last))
        )
        notify(connection, [found.name])


def _taken(connection: Connection, name: str, start: datetime, end: datetime) -> set[datetime]:
    return set(
        connection.scalars(
            select(ScheduleSlot.slot)
            .where(
                ScheduleSlot.schedule == name,
                ScheduleSlot.slot.between(start, end),
                ScheduleSlot.outcome != "skipped",
            )
            .limit(_MOST_SEEN)
        )
    )


def _free(connection: Connection, definition: Definition, slots: Sequence[datetime]) -> None:
    """Take slots out of the rows that say that they were skipped."""
    rows = (
        connection.execute(
            select(ScheduleSlot.slot, ScheduleSlot.until, ScheduleSlot.count)
            .where(
                ScheduleSlot.schedule == definition.name,
                ScheduleSlot.outcome == "skipped",
                ScheduleSlot.slot <= max(slots),
                func.coalesce(ScheduleSlot.until, ScheduleSlot.slot) >= min(slots),
            )
            .with_for_update()
        )
        .mappings()
        .all()
    )
    wanted = set(slots)
    for row in rows:
        last = row["until"] or row["slot"]
        inside = {slot for slot in wanted if row["slot"] <= slot <= last}
        if not inside:
            continue
        this = (ScheduleSlot.schedule == definition.name, ScheduleSlot.slot == row["slot"])
        count = None if row["count"] is None else row["count"] - len(inside)
        first: datetime | None = row["slot"]
        if first in inside:
            first = _next(connection, definition, row["slot"], last, inside)
        if first is None or (count is not None and count <= 0):
            connection.execute(delete(ScheduleSlot).where(*this))
        else:
            left = {"slot": first, "until": None if first == last else last, "count": count}
            connection.execute(update(ScheduleSlot).where(*this).values(left))


def _next(
    connection: Connection,
    definition: Definition,
    first: datetime,
    last: datetime,
    inside: set[datetime],
) -> datetime | None:
    """Return the slot, up to ``last``, with which a row of skipped ones begins without these."""
    rows = select(ScheduleSlot.slot).where(
        ScheduleSlot.schedule == definition.name,
        ScheduleSlot.slot > first,
        ScheduleSlot.slot <= last,
    )
    taken = inside.union(connection.scalars(rows))
    slots = (slot for slot in definition.slots(first) if slot > last or slot not in taken)
    found = next(slots, None)
    return found if found is not None and found <= last else None


def _refuse_unless(holds: bool, reason: str, detail: str) -> None:  # noqa: FBT001
    if not holds:
        raise BackfillRefused(reason, detail)


def _show(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
