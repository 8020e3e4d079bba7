"""All schedules that are declared for this process: next to its actors, and in its files.

They are checked as far as can be without a database, so that a mistake is told by name and place
before anything is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leveret.errors import ConfigurationError, InvalidSchedule
from leveret.schedules import file
from leveret.schedules.check import check, check_here
from leveret.schedules.definition import Definition
from leveret.settings import Settings

if TYPE_CHECKING:
    from leveret.broker import LeveretBroker

__all__ = ["Declared", "Found", "gather"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """A schedule, and where it is declared."""

    definition: Definition
    #: code or file.
    origin: str
    #: The actor next to which it stands, or the file.
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What is declared, and what of it could not be checked here."""

    schedules: dict[str, Declared] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def gather(broker: LeveretBroker | None, settings: Settings) -> Found:
    """Return what is declared: next to the actors of ``broker``, and in the files of the settings.

    Raises `ConfigurationError` for one that makes no sense, and for two of one name.
    """
    found = Found()
    limit = settings.max_body_bytes
    everything = [
        Declared(definition=one, origin="code", where=f"next to the actor {one.actor}")
        for one in (() if broker is None else broker.schedules.values())
    ]
    for path in settings.schedules:
        everything += [
            Declared(definition=one, origin="file", where=f"in {path}")
            for one in file.load(path, limit=limit)
        ]
    for declared in everything:
        name = declared.definition.name
        if (other := found.schedules.get(name)) is not None:
            raise ConfigurationError(
                f"two schedules are called {name!r}: one {other.where}, and one {declared.where}; "
                "rename one"
            )
        try:
            check(declared.definition, limit=limit)
            warnings = check_here(declared.definition, queues=settings.queues, actors=broker)
        except InvalidSchedule as error:
            raise ConfigurationError(f"the schedule {name!r} {declared.where}: {error}") from None
        found.warnings.extend(f"the schedule {name!r} {declared.where}: {w}" for w in warnings)
        found.schedules[name] = declared
    return found
