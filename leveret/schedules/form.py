"""A schedule in plain values, as people and programs write it. Pure.

The same names and values in a file of schedules, on the command line and over HTTP::

    actor, description, queue, arguments, options
    cron, every or at            exactly one of them
    tz                           an IANA name; UTC without
    skipped, doubled             what daylight saving does to cron
    anchor                       from where every counts
    jitter, start, end, missed, window, overlap

A duration is a number of seconds, or a text such as ``90s``, ``1h30m``, ``2d``. A time without an
offset from UTC is what clocks show in ``tz``; with every, that is all that ``tz`` does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any, Final, TypeVar

from leveret.errors import InvalidSchedule
from leveret.message import plain
from leveret.schedules.definition import Definition
from leveret.schedules.policy import Doubled, Missed, Overlap, Skipped
from leveret.schedules.trigger import At, Cron, Every, Trigger

__all__ = ["FIELDS", "duration", "merge", "moment", "read", "trigger_of", "write"]

TRIGGERS: Final = ("cron", "every", "at")
_OF_TRIGGER: Final = (*TRIGGERS, "tz", "anchor", "skipped", "doubled")
#: The fields, beside the name.
FIELDS: Final = (
    "actor",
    "description",
    *_OF_TRIGGER,
    "arguments",
    "queue",
    "options",
    "jitter",
    "start",
    "end",
    "missed",
    "window",
    "overlap",
)
#: What triggers call their parts, and what these are called here.
_RENAMED: Final = {
    "expression": "cron",
    "interval": "every",
    "moment": "at",
}
_UNITS: Final = {
    "ms": "milliseconds",
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
}
_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|[smhdw])")
_P = TypeVar("_P", Missed, Overlap, Skipped, Doubled)


# ------------------------------------------------------------------------------------------ reading


def read(name: str, fields: Mapping[str, object]) -> Definition:
    """Read a schedule; what is None is not given. Raises `InvalidSchedule` naming the field."""
    given = {field: value for field, value in fields.items() if value is not None}
    for field, value in given.items():
        if field not in FIELDS:
            raise InvalidSchedule(field, value, _no_field(field, value))
    if "actor" not in given:
        raise InvalidSchedule("actor", "", "it has to be given: whose jobs they are")
    tz = _text(given, "tz") or "UTC"
    return Definition(
        name=name,
        actor=_text(given, "actor") or "",
        trigger=trigger_of(given),
        arguments=_mapping(given, "arguments"),
        queue=_text(given, "queue"),
        options={key: _jsonable(value) for key, value in _mapping(given, "options").items()},
        jitter=duration("jitter", given.get("jitter", 0)),
        start=_moment_of(given, "start", tz),
        end=_moment_of(given, "end", tz),
        missed=_policy(Missed, given, "missed") or Missed.ONCE,
        window=duration("window", given["window"]) if "window" in given else None,
        overlap=_policy(Overlap, given, "overlap") or Overlap.ALLOW,
        description=_text(given, "description"),
    )


def trigger_of(given: Mapping[str, object]) -> Trigger:
    """Read the trigger alone; raises `InvalidSchedule` as `read` does."""
    there = [field for field in TRIGGERS if given.get(field) is not None]
    if len(there) != 1:
        raise InvalidSchedule(
            there[1] if there else "cron",
            given[there[1]] if there else "",
            "give one of cron, every and at" + (f", not {' and '.join(there)}" if there else ""),
        )
    kind = there[0]
    for field, kinds in (
        ("anchor", ("every",)),
        ("skipped", ("cron", "at")),
        ("doubled", ("cron",)),
    ):
        if given.get(field) is not None and kind not in kinds:
            raise InvalidSchedule(field, given[field], f"it goes with {' or '.join(kinds)} only")
    tz = _text(given, "tz") or "UTC"
    skipped = _policy(Skipped, given, "skipped")
    try:
        if kind == "cron":
            text = _text(given, "cron") or ""
            return Cron(text, tz, skipped, _policy(Doubled, given, "doubled"))
        if kind == "every":
            interval = duration("every", given["every"])
            anchor = _moment_of(given, "anchor", tz)
            return Every(interval) if anchor is None else Every(interval, anchor)
        return At(moment("at", given["at"], tz, skipped or Skipped.SKIP), tz)
    except InvalidSchedule as error:
        field = _RENAMED.get(error.field, error.field)
        raise InvalidSchedule(field, error.value, error.reason, position=error.position) from None


def duration(field: str, value: object) -> timedelta:
    """Read a duration: seconds, or a text such as 90s, 1h30m, 2d; raises `InvalidSchedule`."""
    with suppress(ValueError, OverflowError):
        if isinstance(value, timedelta):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timedelta(seconds=value)
        if isinstance(value, str):
            text = value.replace(" ", "")
            parts = _PART.findall(text)
            if parts and "".join(f"{number}{unit}" for number, unit in parts) == text:
                return sum(
                    (timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts),
                    timedelta(0),
                )
            return timedelta(seconds=float(text))
    raise InvalidSchedule(field, value, "it is a number of seconds, or such as 90s, 1h30m or 2d")


def moment(field: str, value: object, tz: str, skipped: Skipped = Skipped.SKIP) -> datetime:
    """Read a time; one without an offset is what clocks show in ``tz``.

    Raises `InvalidSchedule`, also for one that they never show, unless ``skipped`` is ``next``.
    """
    found = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
    elif isinstance(value, date) and not isinstance(value, datetime):
        found = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - see below
    if not isinstance(found, datetime):
        raise InvalidSchedule(
            field, value, "it is a time such as 2026-03-29T09:00, or with an offset from UTC"
        )
    if found.tzinfo is not None:
        return found
    try:
        return At.local(found, tz, skipped).moment
    except InvalidSchedule as error:
        where = error.field if error.field == "tz" else field
        raise InvalidSchedule(where, error.value, error.reason) from None


def _moment_of(given: Mapping[str, object], field: str, tz: str) -> datetime | None:
    value = given.get(field)
    return None if value is None else moment(field, value, tz)


def _text(given: Mapping[str, object], field: str) -> str | None:
    value = given.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidSchedule(field, value, "it is a text")
    return value


def _mapping(given: Mapping[str, object], field: str) -> Mapping[str, Any]:
    value = given.get(field, {})
    if not isinstance(value, Mapping):
        raise InvalidSchedule(
            field, type(value).__name__, "they are names with values, a table or a JSON object"
        )
    return value


def _policy(kind: type[_P], given: Mapping[str, object], field: str) -> _P | None:
    value = given.get(field)
    if value is None:
        return None
    with suppress(ValueError):
        if isinstance(value, str):
            return kind(value)
    raise InvalidSchedule(field, value, f"it is {' or '.join(kind)}")


def _jsonable(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | None) else plain(value)


def _no_field(field: str, value: object) -> str:
    if isinstance(value, Mapping):
        return "there is no such field; a name with dots in it is written in quotes"
    near = difflib.get_close_matches(field, FIELDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIELDS)}"
    return f"there is no such field; {hint}"


# ------------------------------------------------------------------------------------------ writing


def write(definition: Definition) -> dict[str, Any]:
    """Write a schedule as `read` takes it, with its name, fit for JSON; None where nothing is."""
    trigger = definition.trigger
    cron = isinstance(trigger, Cron)
    return {
        "name": definition.name,
        "actor": definition.actor,
        "description": definition.description,
        "cron": trigger.expression if cron else None,
        "every": trigger.interval.total_seconds() if isinstance(trigger, Every) else None,
        "at": trigger.moment.isoformat() if isinstance(trigger, At) else None,
        "tz": trigger.zone,
        "anchor": None if trigger.anchor is None else trigger.anchor.isoformat(),
        "skipped": str(trigger.skipped) if cron else None,
        "doubled": str(trigger.doubled) if cron else None,
        "arguments": dict(definition.arguments),
        "queue": definition.queue,
        "options": dict(definition.options),
        "jitter": definition.jitter.total_seconds(),
        "start": None if definition.start is None else definition.start.isoformat(),
        "end": None if definition.end is None else definition.end.isoformat(),
        "missed": str(definition.missed),
        "window": None if definition.window is None else definition.window.total_seconds(),
        "overlap": str(definition.overlap),
    }


def merge(definition: Definition, changes: Mapping[str, object]) -> Definition:
    """Return the schedule with what ``changes`` give; None takes away what can be.

    Another kind of trigger takes nothing over from the old one but the zone. Raises
    `InvalidSchedule`.
    """
    fields = write(definition)
    name = fields.pop("name")
    new = [field for field in TRIGGERS if changes.get(field) is not None]
    if new and fields[new[0]] is None:
        fields |= dict.fromkeys((*TRIGGERS, "anchor", "skipped", "doubled"))
        if new[0] == "every":
            fields["tz"] = None
    elif isinstance(definition.trigger, Cron):
        old = definition.trigger
        usual = Cron(old.expression, old.zone)
        # What was not chosen, but followed from the expression, follows from the new one.
        if (old.skipped, old.doubled) == (usual.skipped, usual.doubled):
            fields["skipped"] = fields["doubled"] = None
    fields |= changes
    return read(name, fields)
