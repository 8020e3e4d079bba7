"""What the API shows of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import Any, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from leveret.errors import InvalidSchedule
from leveret.ledger import State
from leveret.schedules import form
from leveret.schedules.backfill import Plan
from leveret.schedules.gaps import Gaps
from leveret.schedules.history import Cause, Outcome
from leveret.schedules.history import Slot as HistorySlot
from leveret.schedules.preview import Entry, Mark
from leveret.schedules.preview import Preview as PreviewOf
from leveret.schedules.row import Row, StoredSchedule, stored
from leveret.schedules.run import Fired

__all__ = [
    "Backfilled",
    "FiredSlot",
    "GapReport",
    "NextFire",
    "Preview",
    "PreviewEntry",
    "Schedule",
    "SchedulePage",
    "SlotLine",
    "SlotPage",
]

#: So many fires to come are shown with a schedule.
NEXT = 5


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class NextFire(BaseModel):
    """A slot that is to come."""

    at: datetime = Field(description="In UTC.")
    local: str = Field(description="In the schedule's zone, with its offset from UTC.")


class Schedule(BaseModel):
    """A schedule: when which job is published, and how far it is."""

    name: str
    origin: str = Field(
        description="`api`; `code` or `file` for one that is declared, and changed there only."
    )
    state: str = Field(description="active, paused, or ended: no slot is to come.")
    description: str | None
    actor: str
    arguments: dict[str, Any]
    queue: str | None
    options: dict[str, Any]
    cron: str | None
    every: float | None = Field(description="In seconds.")
    at: datetime | None
    tz: str
    anchor: datetime | None
    skipped: str | None
    doubled: str | None
    jitter: float = Field(description="In seconds.")
    start: datetime | None
    end: datetime | None
    missed: str
    window: float | None = Field(description="In seconds.")
    overlap: str
    next: list[NextFire] = Field(description="The next five fires; none while it is paused.")
    next_due_at: datetime | None = Field(
        description="When the job of the next slot is published, jitter included."
    )
    last_slot: datetime | None = Field(
        description="The last slot that was decided on, since `since`."
    )
    since: datetime = Field(
        description="Since when its slots are these: made, changed in that, or resumed."
    )
    version: int = Field(description="One more with each change; also the ETag.")
    paused_at: datetime | None
    paused_by: str | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str | None

    @classmethod
    def of(cls, known: StoredSchedule, now: datetime) -> Self:
        """Show a schedule as it is at a time."""
        coming: list[NextFire] = []
        if known.paused_at is None:
            zone = known.definition.trigger.zone
            coming = [_next(slot, zone) for slot in islice(known.definition.slots(now), NEXT)]
        return cls(
            **form.write(known.definition),
            origin=known.origin,
            state=known.state,
            next=coming,
            next_due_at=known.next_due_at,
            last_slot=known.last_slot,
            since=known.since,
            version=known.version,
            paused_at=known.paused_at,
            paused_by=known.paused_by,
            created_at=known.created_at,
            created_by=known.created_by,
            updated_at=known.updated_at,
            updated_by=known.updated_by,
        )


class Unreadable(_Shown):
    """A schedule whose slots cannot be told."""

    schedule: str
    detail: str


class SchedulePage(BaseModel):
    """A page of schedules, by name."""

    schedules: list[Schedule]
    unreadable: list[Unreadable] = Field(
        description="Those of the page whose rows this release cannot read."
    )
    next: str | None = Field(description="What `after` is for the next page; null at the end.")

    @classmethod
    def of(cls, found: Sequence[Row], limit: int, now: datetime) -> Self:
        """Show at most ``limit`` schedules as they are at a time; there is more behind these."""
        schedules, unreadable = [], []
        for row in found[:limit]:
            try:
                schedules.append(Schedule.of(stored(row), now))
            except InvalidSchedule as error:
                unreadable.append(Unreadable(schedule=row["name"], detail=str(error)))
        more = len(found) > limit
        return cls(
            schedules=schedules,
            unreadable=unreadable,
            next=found[limit - 1]["name"] if more else None,
        )


class FiredSlot(_Shown):
    """A slot that was fired, and its job."""

    slot: datetime
    job_id: str


class Backfilled(BaseModel):
    """What a backfill has fired, or, of a dry run, would."""

    dry_run: bool
    slots: list[FiredSlot]
    fired_before: int = Field(
        description="Slots of the range that were fired before, or wait, as far as was looked."
    )
    more: bool = Field(
        description="Of a dry run: there are more than the limit, so that it would be refused."
    )

    @classmethod
    def of(cls, plan: Plan, fired: list[Fired] | None) -> Self:
        """Show what was fired; None for a dry run."""
        slots = plan.jobs if fired is None else fired
        return cls(
            dry_run=fired is None,
            slots=[FiredSlot.model_validate(slot) for slot in slots],
            fired_before=plan.fired,
            more=plan.more,
        )


class SlotLine(_Shown):
    """A slot of a schedule, or a run of them that were skipped for one reason."""

    slot: datetime
    until: datetime | None = Field(description="The last of a run of slots.")
    count: int | None = Field(description="How many; null when they are too many to be counted.")
    due_at: datetime = Field(description="The slot, with its jitter.")
    fired_at: datetime = Field(description="When it was decided.")
    lateness: float | None = Field(
        description="Seconds from `due_at` to `fired_at`, if it was fired."
    )
    outcome: Outcome
    reason: str | None = Field(description="Why it was skipped, or waits.")
    cause: Cause
    asked_by: str | None
    job_id: str | None
    job_state: State | None = Field(
        description="Null while the ledger does not know the job, or when it is forgotten."
    )
    job_reason: str | None = Field(description="Why the job is dead, cancelled or expired.")
    job_started_at: datetime | None
    job_finished_at: datetime | None

    @classmethod
    def of(cls, slot: HistorySlot) -> Self:
        """Show a slot."""
        fields = {name: getattr(slot, name) for name in cls.model_fields if name != "lateness"}
        late = slot.lateness
        return cls(**fields, lateness=None if late is None else late.total_seconds())


class SlotPage(BaseModel):
    """A page of slots, the newest first."""

    slots: list[SlotLine]
    next: str | None = Field(description="The `cursor` of the next page; null at the end.")


class PreviewEntry(BaseModel):
    """A slot, or a time that clocks leave out and that there is no slot for."""

    slot: datetime | None = Field(description="In UTC; null for a time that is left out.")
    local: str = Field(description="What clocks show in the zone, with their offset from UTC.")
    mark: Mark | None = Field(
        description="What daylight saving does: `skipped` (left out, no slot), `moved` (to the "
        "first moment after the gap), `first` and `second` (of two slots at one local time), "
        "`doubled` (shown twice, the first is the slot)."
    )
    wanted: str | None = Field(description="The local time that a moved slot stands for.")

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """Show an entry."""
        return cls(
            slot=None if entry.slot is None else entry.slot.astimezone(UTC),
            local=_local(entry.local, entry.offset),
            mark=entry.mark,
            wanted=None if entry.wanted is None else entry.wanted.isoformat(),
        )


class Preview(BaseModel):
    """What a schedule does in a period."""

    zone: str
    entries: list[PreviewEntry]
    truncated: bool = Field(description="There are more in the period.")

    @classmethod
    def of(cls, found: PreviewOf) -> Self:
        """Show a preview."""
        return cls(
            zone=found.zone,
            entries=[PreviewEntry.of(entry) for entry in found.entries],
            truncated=found.truncated,
        )


class Gap(_Shown):
    """A slot that was passed over: nothing was decided on it, and nobody looks at it again."""

    schedule: str
    slot: datetime


class Overdue(_Shown):
    """Slots that no scheduler has decided on, though they were due a while ago."""

    schedule: str
    slot: datetime = Field(description="The first of them.")
    count: int


class WithoutJob(_Shown):
    """A slot that was fired, and whose job neither the outbox nor the ledger knows."""

    schedule: str
    slot: datetime
    job_id: str
    fired_at: datetime


class GapReport(_Shown):
    """What is missing among the slots of schedules; `leveret audit --repair` makes it good."""

    checked_at: datetime
    since: datetime
    until: datetime
    schedules: int = Field(description="How many were looked at.")
    slots: int
    gaps: list[Gap]
    overdue: list[Overdue]
    without_job: list[WithoutJob]
    unreadable: list[Unreadable]
    shortened: dict[str, datetime] = Field(
        description="Schedules with more slots than are looked at, and from when on theirs were."
    )
    more: bool = Field(description="There are more than are named.")
    leader: str | None = Field(description="The scheduler that leads.")

    @classmethod
    def of(cls, found: Gaps) -> Self:
        """Show what was found."""
        return cls.model_validate(found)


def _next(slot: datetime, zone: str) -> NextFire:
    return NextFire(at=slot, local=slot.astimezone(ZoneInfo(zone)).isoformat())


def _local(wall: datetime, offset: timedelta) -> str:
    return wall.replace(tzinfo=timezone(offset)).isoformat()
