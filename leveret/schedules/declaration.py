"""Schedules next to the actors whose jobs they publish.

::

    @actor("report.build", schedule=Cron("0 9 * * 1-5", tz="Europe/Lisbon"))
    def build(*, of: str = "yesterday") -> None: ...

`Schedule` says more than when, and a list of them more than one. Declaring is all that happens
here: a scheduler makes rows of what is declared (`leveret.schedules.reconcile`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from leveret.errors import ConfigurationError, InvalidSchedule
from leveret.schedules.check import check
from leveret.schedules.definition import Definition
from leveret.schedules.form import duration
from leveret.schedules.policy import Missed, Overlap
from leveret.schedules.trigger import At, Cron, Every, Trigger

__all__ = ["Schedule", "Schedules", "definitions"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When jobs of an actor are published, with which arguments; for ``@actor(schedule=…)``.

    :param trigger: the slots: `Cron`, `Every` or `At`.
    :param name: by which it is known; the actor's own where there is only one.
    :param arguments: the actor's named arguments.
    :param queue: the pool that runs the jobs; the actor's without.
    :param options: of the jobs: priority, max_retries, once, unique_for, …
    :param jitter: publish each up to so much later than its slot; a timedelta, or seconds.
    :param start: no slot before it, an aware datetime.
    :param end: no slot after it.
    :param missed: what becomes of slots that passed while no scheduler led: skip, once (the
        latest of them is published), or all.
    :param window: slots that are older are skipped, whatever ``missed`` says.
    :param overlap: what becomes of a slot while the job of an earlier one has not ended: allow,
        skip, or queue.
    :param description: for people.
    """

    trigger: Trigger
    _: KW_ONLY
    name: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    jitter: timedelta | float = timedelta(0)
    start: datetime | None = None
    end: datetime | None = None
    missed: Missed | str = Missed.ONCE
    window: timedelta | float | None = None
    overlap: Overlap | str = Overlap.ALLOW
    description: str | None = None

    def definition(self, actor: str) -> Definition:
        """Return what it says of ``actor``; raises `InvalidSchedule`."""
        made = Definition(
            name=actor if self.name is None else self.name,
            actor=actor,
            trigger=self.trigger,
            arguments=self.arguments,
            queue=self.queue,
            options=self.options,
            jitter=duration("jitter", self.jitter),
            start=self.start,
            end=self.end,
            missed=_policy(Missed, "missed", self.missed),
            window=None if self.window is None else duration("window", self.window),
            overlap=_policy(Overlap, "overlap", self.overlap),
            description=self.description,
        )
        check(made)
        return made


#: What an actor may be given as its ``schedule``.
Schedules: TypeAlias = Trigger | Schedule | Sequence[Trigger | Schedule]


def definitions(actor: str, schedule: Schedules) -> list[Definition]:
    """Return the schedules that are declared with an actor; raises `ConfigurationError`."""
    several = schedule if isinstance(schedule, list | tuple) else [schedule]
    found: dict[str, Definition] = {}
    for one in several:
        if not isinstance(one, Schedule | At | Cron | Every):
            raise ConfigurationError(
                f"the schedule of actor {actor!r} is Cron(…), Every(…), At(…) or Schedule(…) of "
                f"leveret.schedules, or a list of these, not {one!r:.200}"
            )
        try:
            made = (one if isinstance(one, Schedule) else Schedule(one)).definition(actor)
        except InvalidSchedule as error:
            raise ConfigurationError(f"the schedule of actor {actor!r}: {error}") from None
        if made.name in found:
            raise ConfigurationError(
                f"actor {actor!r} has two schedules {made.name!r}; give each a name of its own: "
                "Schedule(…, name=…)"
            )
        found[made.name] = made
    return list(found.values())


def _policy(kind: Any, name: str, value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InvalidSchedule(name, value, f"it is {' or '.join(kind)}") from None
