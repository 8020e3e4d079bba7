"""What the API reads about schedules: one model for each document, strict like all of them.

The names are those of a declaration in code or in a file, so that what one refuses is pointed at by
the same word in the other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from leveret.schedules import history
from leveret.schedules.history import Outcome
from services.api.models import Time, Word, kept
from services.api.views import MAX_PAGE

__all__ = [
    "Backfill",
    "GapQuery",
    "NewSchedule",
    "Options",
    "PreviewQuery",
    "PreviewRequest",
    "ScheduleChange",
    "ScheduleQuery",
    "SlotQuery",
    "Timing",
]

#: The most slots of one preview, and of one backfill.
MAX_PREVIEW = 1000
MAX_BACKFILL = 10_000

#: Read by `leveret.schedules.form`, which says what is wrong with it.
Duration = (
    Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]
    | Annotated[str, Field(min_length=1, max_length=50)]
)
Moment = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(kept)]
Expression = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(kept)]
Words = Annotated[str, Field(max_length=1000)]
Skipped = Literal["skip", "next"]
Doubled = Literal["first", "both"]
Missed = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue"]


def _reckoned(moment: datetime) -> datetime:
    if not 1900 <= moment.year <= 9997:
        raise ValueError("must be between the years 1900 and 9997")
    return moment


#: A time that the slots of a schedule can be reckoned from.
Reckoned = Annotated[Time, AfterValidator(_reckoned)]


class _In(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Options(_In):
    """The rest of each job."""

    priority: int | None = Field(default=None, ge=0, le=255)
    max_retries: int | None = Field(default=None, ge=0, le=1000)
    correlation_id: Word | None = None
    idempotency_key: Word | None = None
    once: bool | None = None
    unique_for: int | None = Field(default=None, ge=1, le=10**9, description="In seconds.")
    unique_until: Literal["started", "done"] | None = None
    on_conflict: Literal["skip", "replace"] | None = None


class Timing(_In):
    """When: exactly one of `cron`, `every` and `at`."""

    cron: Expression | None = Field(
        default=None,
        description="Five fields, or six with seconds first: lists, ranges, steps, names, `L`, "
        "`W`, `#`, or a macro such as `@daily`.",
        examples=["0 9 * * MON-FRI"],
    )
    tz: Word | None = Field(
        default=None,
        description="The time zone of `cron`, an IANA name; UTC by default.",
        examples=["Europe/Lisbon"],
    )
    skipped: Skipped | None = Field(
        default=None,
        description="What becomes of a wall-clock time that daylight saving leaves out: no slot, "
        "or the first moment after the gap. Follows from the expression where it is not given.",
    )
    doubled: Doubled | None = Field(
        default=None,
        description="Which is a slot where daylight saving has a time twice.",
    )
    every: Duration | None = Field(
        default=None,
        description="Between two slots: seconds, or a text such as `90s` or `1h30m`.",
        examples=[90, "1h30m"],
    )
    anchor: Moment | None = Field(
        default=None, description="From when `every` is counted; 1970-01-01 UTC by default."
    )
    at: Moment | None = Field(
        default=None,
        description="One slot. Here and in all of these, a time without an offset from UTC is what "
        "clocks show in `tz`.",
        examples=["2027-03-28T09:00:00+01:00"],
    )
    jitter: Duration | None = Field(
        default=None,
        description="A job is published up to so much later than its slot, always as much for "
        "the same slot.",
    )
    start: Moment | None = Field(default=None, description="No slot before this time.")
    end: Moment | None = Field(default=None, description="No slot after this time.")


class ScheduleChange(Timing):
    """What to change; what is not given stays, and null stands for the default.

    A new `cron`, `every` or `at` takes the place of what there was.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"cron": "30 8 * * MON-FRI", "overlap": "skip"}]}
    )

    actor: Word | None = Field(default=None, description="The actor that runs the jobs.")
    arguments: dict[str, Any] | None = Field(
        default=None, description="The actor's named arguments, all of them."
    )
    queue: Word | None = None
    options: Options | None = None
    missed: Missed | None = Field(
        default=None,
        description="What becomes of slots that passed while no scheduler led: none is fired, the "
        "latest, or each.",
    )
    window: Duration | None = Field(
        default=None,
        description="Missed slots that are older than this are skipped whatever `missed` says.",
    )
    overlap: Overlap | None = Field(
        default=None,
        description="What becomes of a slot while the job of an earlier one has not ended: it is "
        "fired all the same, skipped, or fired when that one has ended.",
    )
    description: Words | None = None


class NewSchedule(ScheduleChange):
    """A schedule to make."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "weekday-report",
                    "actor": "email.send",
                    "arguments": {"to": "team@example.org", "subject": "Good morning"},
                    "cron": "0 9 * * MON-FRI",
                    "tz": "Europe/Lisbon",
                    "missed": "once",
                    "window": 3600,
                    "overlap": "skip",
                }
            ]
        }
    )

    name: Word = Field(
        description="Letters, digits and `_ . : -`; it stays.", examples=["weekday-report"]
    )
    actor: Word = Field(description="The actor that runs the jobs.", examples=["email.send"])


class ScheduleQuery(BaseModel):
    """Which schedules to list; all that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    actor: Word | None = None
    origin: Literal["code", "file", "api"] | None = None
    paused: bool | None = None
    limit: int = Field(default=50, ge=1, le=MAX_PAGE)
    after: Word | None = Field(default=None, description="`next` of the page before.")


class SlotQuery(BaseModel):
    """Which slots to list; all that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    outcome: list[Outcome] = Field(default=[], max_length=3, description="Any of these.")
    since: Time | None = Field(default=None, description="At this time or later.")
    until: Time | None = Field(default=None, description="Before this time.")
    limit: int = Field(default=50, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(
        default=None, max_length=200, description="`next` of the page before."
    )

    def filter(self) -> history.SlotFilter:
        """Return it as the library has it."""
        return history.SlotFilter(
            outcomes=frozenset(self.outcome), since=self.since, until=self.until
        )


class PreviewQuery(BaseModel):
    """Which part of a schedule's future, or past, to show."""

    model_config = ConfigDict(extra="forbid")

    begin: Reckoned | None = Field(default=None, alias="from", description="From then on; now.")
    finish: Reckoned | None = Field(default=None, alias="to", description="Up to this time.")
    limit: int = Field(default=100, ge=1, le=MAX_PREVIEW)


class PreviewRequest(Timing):
    """A schedule that is not stored, and which part of it to show."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "cron": "30 1 * * *",
                    "tz": "Europe/Lisbon",
                    "from": "2027-03-27T00:00:00Z",
                    "limit": 3,
                }
            ]
        }
    )

    begin: Reckoned | None = Field(default=None, alias="from", description="From then on; now.")
    finish: Reckoned | None = Field(default=None, alias="to", description="Up to this time.")
    limit: int = Field(default=100, ge=1, le=MAX_PREVIEW)


class Backfill(_In):
    """Which slots to fire that have passed without a job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"from": "2027-01-01T00:00:00Z", "to": "2027-01-02T00:00:00Z", "dry_run": True}
            ]
        }
    )

    begin: Reckoned = Field(alias="from", description="The first moment.")
    end: Reckoned = Field(alias="to", description="The last.")
    dry_run: bool = Field(default=False, description="Only say which slots would be fired.")
    limit: int = Field(
        default=100,
        ge=1,
        le=MAX_BACKFILL,
        description="With more slots than this, nothing is fired.",
    )


class GapQuery(BaseModel):
    """Where to look for slots that are missing."""

    model_config = ConfigDict(extra="forbid")

    schedule: Word | None = Field(default=None, description="Of this one only.")
    since: Time | None = Field(default=None, description="From this time on; a day ago.")
    until: Time | None = Field(default=None, description="Up to this time; a minute ago.")
