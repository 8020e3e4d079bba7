"""What ``leveret schedules`` reads and shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy.engine import Connection

from leveret.cli.common import print_json, print_table
from leveret.cli.scheduling import Given
from leveret.errors import ConfigurationError, InvalidSchedule, UnknownSchedule
from leveret.schedules import form, store
from leveret.schedules import history as slots_of
from leveret.schedules import preview as previewing
from leveret.schedules.definition import Definition
from leveret.schedules.row import StoredSchedule
from leveret.settings import Settings
from leveret.store.engine import engine as make_engine

__all__ = [
    "document",
    "headline",
    "history",
    "listing",
    "preview",
    "print_slots",
    "schedule_of",
    "show",
    "time_in_zone",
    "transaction",
]


@contextmanager
def transaction(settings: Settings | None = None) -> Iterator[Connection]:
    """Enter a transaction of the database."""
    made = make_engine(
        (settings or Settings.from_env()).require_database_url(), pool_size=1, application="cli"
    )
    try:
        with made.begin() as connection:
            yield connection
    finally:
        made.dispose()


def schedule_of(connection: Connection, name: str) -> StoredSchedule:
    """Return a schedule; raises `UnknownSchedule`."""
    found = store.get(connection, name)
    if found is None:
        raise UnknownSchedule(name)
    return found


def time_in_zone(field: str, text: str, zone: str, now: datetime) -> datetime:
    """Read a time in ``zone``, or how long ago it was: 90m, 2h, 3d."""
    if text[-1:] in tuple("smhdw"):
        try:
            return now - form.duration(field, text)
        except (InvalidSchedule, OverflowError):
            pass  # answered below
    try:
        return form.moment(field, text, zone)
    except InvalidSchedule as error:
        raise ConfigurationError(f"--{error}; or how long ago, such as 90m") from None


# ------------------------------------------------------------------------------------------ showing


def _utc(moment: datetime) -> str:
    return _clock(moment.astimezone(UTC))


def _local(moment: datetime, zone: str) -> str:
    there = moment.astimezone(ZoneInfo(zone))
    return f"{_clock(there)} {there:%a %Z}"


def _clock(moment: datetime) -> str:
    digits = f".{moment.microsecond // 1000:03d}" if moment.microsecond else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{digits}"


def _seconds(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:.15g}s"


def when(definition: Definition) -> str:
    """Return in a line when a schedule fires."""
    fields = form.write(definition)
    if fields["cron"] is not None:
        return f"cron {fields['cron']}"
    if fields["every"] is not None:
        return f"every {_seconds(timedelta(seconds=fields['every']))}"
    return f"at {definition.trigger.expression}"


def headline(found: StoredSchedule) -> str:
    """Return in a line what a schedule does, and when next."""
    due = found.next_due_at
    what = f"{when(found.definition)} ({found.definition.trigger.zone})"
    if found.paused_at is not None:
        return f"{what}, paused by {found.paused_by}"
    return f"{what}, next at {_utc(due)} UTC" if due is not None else f"{what}, nothing to come"


def fires_of(found: StoredSchedule, now: datetime, count: int) -> list[datetime]:
    """Return the next slots; none of a schedule that is paused."""
    if found.paused_at is not None:
        return []
    return list(islice(found.definition.slots(max(now, found.last_slot or now)), count))


def _fire(definition: Definition, slot: datetime) -> dict[str, str]:
    return {
        "slot": slot.isoformat(),
        "local": slot.astimezone(ZoneInfo(definition.trigger.zone)).isoformat(),
        "due_at": definition.due(slot).isoformat(),
    }


def document(found: StoredSchedule, now: datetime, *, fires: int) -> dict[str, Any]:
    """Return a schedule for programs: its fields, how far it is, and its next fires."""
    return {
        **form.write(found.definition),
        "origin": found.origin,
        "state": found.state,
        "version": found.version,
        "since": found.since,
        "last_slot": found.last_slot,
        "next_due_at": found.next_due_at,
        "paused_at": found.paused_at,
        "paused_by": found.paused_by,
        "created_at": found.created_at,
        "created_by": found.created_by,
        "updated_at": found.updated_at,
        "updated_by": found.updated_by,
        "next": [_fire(found.definition, slot) for slot in fires_of(found, now, fires)],
    }


def print_slots(zone: str, slots: Sequence[tuple[datetime, str]]) -> None:
    """Print slots in a zone and in UTC, each with its job."""
    if slots:
        print_table(
            (zone, "UTC", "job"),
            [(_local(slot, zone), _utc(slot), job) for slot, job in slots],
        )


# ----------------------------------------------------------------------------------------- commands


def listing(
    *,
    actor: str | None,
    origin: str | None,
    paused: bool | None,
    fires: int,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """Print schedules, each with its next fires."""
    with transaction() as connection:
        now = store.database_time(connection)
        found = store.listing(
            connection, actor=actor, origin=origin, paused=paused, after=after, limit=limit + 1
        )
    more = found[limit - 1].name if len(found) > limit else None
    found = found[:limit]
    if as_json:
        items = [document(one, now, fires=fires) for one in found]
        print_json({"items": items, "next": more})
        return
    rows: list[tuple[str, ...]] = []
    for one in found:
        zone = one.definition.trigger.zone
        what = (one.name, one.state, one.origin, one.definition.actor, when(one.definition), zone)
        slots = fires_of(one, now, fires)
        shown = [(_local(slot, zone), _utc(slot)) for slot in slots] or [("-", "-")]
        rows.append((*what, *shown[0]))
        rows += [("",) * len(what) + times for times in shown[1:]]
    print_table(("schedule", "state", "by", "actor", "when", "zone", "next there", "in UTC"), rows)
    if more is not None:
        print(f"more: --after {more}")


def show(name: str, *, fires: int, as_json: bool) -> None:
    """Print all of a schedule."""
    with transaction() as connection:
        now = store.database_time(connection)
        found = schedule_of(connection, name)
    shown = document(found, now, fires=fires)
    if as_json:
        print_json(shown)
        return
    shown.pop("next")
    rows = [
        (
            field.replace("_", " "),
            json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value,
        )
        for field, value in shown.items()
        if value is not None and value != {}
    ]
    print_table(("field", "value"), rows)
    zone = found.definition.trigger.zone
    slots = fires_of(found, now, fires)
    if slots:
        print()
        print_table(
            (f"next in {zone}", "in UTC"), [(_local(slot, zone), _utc(slot)) for slot in slots]
        )


def preview(
    name: str | None,
    given: Given,
    *,
    begin: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print the slots of a period."""
    if (name is None) == (not given.fields):
        raise ConfigurationError("name a schedule, or say when: --cron, --every or --at")
    now = datetime.now(UTC)
    if name is None:
        # The actor is nobody's: only the slots are looked at.
        definition = form.read("preview", {"actor": "preview", **given.fields})
    else:
        with transaction() as connection:
            now = store.database_time(connection)
            definition = schedule_of(connection, name).definition
    zone = definition.trigger.zone
    found = previewing.preview(
        definition,
        now if begin is None else time_in_zone("from", begin, zone, now),
        None if until is None else time_in_zone("to", until, zone, now),
        limit=limit,
    )
    if as_json:
        entries = [_entry(entry) for entry in found.entries]
        print_json({"zone": found.zone, "entries": entries, "more": found.truncated})
        return
    print_table(
        (zone, "UTC", "clocks"),
        [
            (
                f"{_clock(entry.local)} {entry.local:%a}",
                "-" if entry.slot is None else _utc(entry.slot),
                _note(entry),
            )
            for entry in found.entries
        ],
    )
    if not found.entries:
        print("no slot")
    elif found.truncated and until is not None:
        print(f"more: --limit {limit * 2}")


_NOTES = {
    previewing.Mark.SKIPPED: "no such time: clocks are put forward; no slot",
    previewing.Mark.FIRST: "clocks show this twice: the first",
    previewing.Mark.SECOND: "clocks show this twice: the second",
    previewing.Mark.DOUBLED: "clocks show this twice: only the first is a slot",
}


def _note(entry: previewing.Entry) -> str:
    if entry.mark is None:
        return ""
    if entry.wanted is not None:
        return f"clocks leave out {entry.wanted:%H:%M:%S}: the first moment after it"
    return _NOTES[entry.mark]


def _entry(entry: previewing.Entry) -> dict[str, Any]:
    return {
        "slot": None if entry.slot is None else entry.slot.isoformat(),
        "local": entry.local.isoformat(),
        "offset": entry.offset.total_seconds(),
        "mark": entry.mark,
        "wanted": None if entry.wanted is None else entry.wanted.isoformat(),
    }


def history(
    name: str,
    *,
    outcomes: Sequence[str],
    since: str | None,
    until: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """Print what became of slots."""
    try:
        wanted = frozenset(slots_of.Outcome(outcome) for outcome in outcomes)
    except ValueError:
        known = ", ".join(slots_of.Outcome)
        raise ConfigurationError(f"--outcome is one of {known}, not {outcomes[-1]!r}") from None
    with transaction() as connection:
        now = store.database_time(connection)
        found = store.get(connection, name)
        zone = "UTC" if found is None else found.definition.trigger.zone
        page = slots_of.slots(
            connection,
            name,
            slots_of.SlotFilter(
                outcomes=wanted,
                since=None if since is None else time_in_zone("since", since, zone, now),
                until=None if until is None else time_in_zone("until", until, zone, now),
            ),
            limit=limit,
            after=after,
        )
    if found is None and not page.items:
        raise UnknownSchedule(name)
    if as_json:
        items = [_slot(slot) for slot in page.items]
        print_json({"items": items, "next": page.next})
        return
    print_table(
        (zone, "UTC", "outcome", "cause", "late", "job", "state"),
        [
            (
                _local(slot.slot, zone) + _until(slot, zone),
                _utc(slot.slot),
                slot.outcome + (f" ({slot.reason})" if slot.reason else ""),
                slot.cause + (f" by {slot.asked_by}" if slot.asked_by else ""),
                _late(slot),
                slot.job_id or "-",
                slot.job_state or "-",
            )
            for slot in page.items
        ],
    )
    if page.next is not None:
        print(f"more: --after {page.next}")


def _until(slot: slots_of.Slot, zone: str) -> str:
    if slot.until is None:
        return ""
    count = "very many" if slot.count is None else f"{slot.count:,}"
    return f" to {_local(slot.until, zone)}, {count} slots"


def _late(slot: slots_of.Slot) -> str:
    # How late a slot is that somebody wanted afterwards says nothing.
    if slot.lateness is None or slot.cause is not slots_of.Cause.SCHEDULE:
        return "-"
    return f"{slot.lateness.total_seconds():.3f}s"


def _slot(slot: slots_of.Slot) -> dict[str, Any]:
    fields = {name: getattr(slot, name) for name in slots_of.Slot.__dataclass_fields__}
    lateness = None if slot.lateness is None else slot.lateness.total_seconds()
    return {**fields, "lateness": lateness}
