"""From what a request says of a schedule to its definition; and what was wrong with it. Pure.

What can be said is what `leveret.schedules.form` reads; here it is checked against the actors and
queues of this installation, and each fault is pointed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leveret.errors import (
    BackfillRefused,
    InvalidSchedule,
    ScheduleError,
    ScheduleExists,
    UnknownSchedule,
)
from leveret.schedules import form
from leveret.schedules.check import check
from leveret.schedules.definition import Definition
from services.api.catalogue import Catalogue
from services.api.problem import Fault, Kind, Problem

__all__ = ["changed", "definition", "problem_of", "timing"]

#: Says nothing of a job: of a schedule that is only looked at.
_NOBODY = "no.actor"
_TOO_FAR = "it is beyond what can be reckoned with"


def definition(fields: Mapping[str, Any], catalogue: Catalogue, *, limit: int) -> Definition:
    """Put a new schedule together, and check it as far as it can be checked here.

    ``fields`` are those of a `NewSchedule`, ``limit`` is the largest body of a job in bytes. Raises
    a `Problem` that names everything that is wrong.
    """
    rest = {name: value for name, value in fields.items() if name != "name"}
    return _checked(lambda: form.read(fields["name"], rest), fields, catalogue, limit=limit)


def changed(
    known: Definition, change: Mapping[str, Any], catalogue: Catalogue, *, limit: int
) -> Definition:
    """Return what a schedule is when some of its fields are others; None takes one away.

    Checked, and refused, as a new one.
    """
    fields = {"actor": known.actor, "queue": known.queue, "arguments": known.arguments, **change}
    return _checked(lambda: form.merge(known, change), fields, catalogue, limit=limit)


def timing(fields: Mapping[str, Any]) -> Definition:
    """Return a definition that has the slots of what is asked for, and stands for no schedule.

    Raises a `Problem`.
    """
    found, faults = _attempt(lambda: form.read("preview", {"actor": _NOBODY, **fields}))
    if found is None:
        raise _invalid(faults)
    return found


def problem_of(error: ScheduleError) -> Problem:
    """Say what to answer when this was raised."""
    detail = str(error)
    match error:
        case InvalidSchedule():
            return _invalid([_fault(error)])
        case UnknownSchedule():
            return Problem(Kind.NOT_FOUND, f"there is no schedule {error.name[:200]!r}")
        case ScheduleExists():
            fault = Fault(pointer="/name", reason="name-taken", detail=detail)
        case BackfillRefused():
            fault = Fault(reason=error.reason, detail=detail)
        case _:
            fault = Fault(reason="declared", detail=detail)
    return Problem(Kind.CONFLICT, detail, errors=[fault])


def _checked(
    make: Callable[[], Definition],
    fields: Mapping[str, Any],
    catalogue: Catalogue,
    *,
    limit: int,
) -> Definition:
    found, faults = _attempt(make, limit=limit)
    more = catalogue.faults(fields["actor"] or "", fields["queue"], fields["arguments"] or {})
    known = {fault.pointer for fault in more}
    faults = [fault for fault in faults if fault.pointer not in known] + more
    if faults or found is None:
        raise _invalid(faults)
    return found


def _attempt(
    make: Callable[[], Definition], *, limit: int = 2**31
) -> tuple[Definition | None, list[Fault]]:
    try:
        found = make()
        check(found, limit=limit)
    except InvalidSchedule as error:
        return None, [_fault(error)]
    except OverflowError:
        return None, [Fault(pointer="", reason="invalid", detail=_TOO_FAR)]
    return found, []


def _fault(error: InvalidSchedule) -> Fault:
    return Fault(
        pointer=f"/{error.field}", position=error.position, reason="invalid", detail=str(error)
    )


def _invalid(faults: list[Fault]) -> Problem:
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Problem(Kind.INVALID_SCHEDULE, f"{faults[0].detail}{more}", errors=faults)
