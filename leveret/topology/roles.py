"""Who may do what in the broker: one RabbitMQ user for each kind of process.

Permissions are RabbitMQ's three regular expressions (configure, write, read) over object names,
and topic permissions over the routing keys that a user may publish to an exchange. Nobody but
``admin`` declares anything, except that a worker has its own exclusive ``leveret.control.<id>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from leveret import wheel
from leveret.names import (
    ANY_QUEUE,
    CONTROL,
    DEAD,
    DEFAULT_QUEUES,
    DELAY,
    JOBS,
    LEDGER,
    OUTCOMES,
    QUARANTINE,
    RETRY,
    UNROUTABLE,
)

__all__ = ["NOTHING", "ROLES", "Role", "roles_for"]

#: The pattern that no name matches.
NOTHING = "^$"


@dataclass(frozen=True, kw_only=True)
class Role:
    """The permissions of one kind of process; its user is called ``leveret-<name>``."""

    name: str
    #: Names that it may declare or delete.
    configure: str = NOTHING
    #: Names that it may publish to, or bind from.
    write: str = NOTHING
    #: Names that it may consume from, or bind to.
    read: str = NOTHING
    #: Routing keys that it may publish, by topic exchange.
    topics: Mapping[str, str] = field(default_factory=dict)
    #: What it may see in the management API.
    tags: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """The name of its RabbitMQ user."""
        return f"leveret-{self.name}"


def _names(*patterns: str) -> str:
    return f"^({'|'.join(patterns)})$"


def roles_for(queues: Sequence[str]) -> Mapping[str, Role]:
    """Write the roles for a set of work queues."""
    work = "|".join(queues)
    key = rf"({ANY_QUEUE}|{work})(\..+)?$"
    now, later = f"^{key}", rf"^([0-9a-f]\.){{{wheel.DIGITS}}}{key}"
    entries = {JOBS: now, DELAY: later}
    jobs, delay, retry, outcomes, dead, quarantine, control, ledger, unroutable = map(
        re.escape, (JOBS, DELAY, RETRY, OUTCOMES, DEAD, QUARANTINE, CONTROL, LEDGER, UNROUTABLE)
    )
    own_control = rf"{control}\.[^.]+"
    everything = r"^leveret\."
    roles = (
        Role(
            name="admin",
            configure=everything,
            write=everything,
            read=everything,
            tags=("policymaker",),
        ),
        Role(name="publisher", write=_names(jobs, delay), topics=entries),
        Role(name="relay", write=_names(jobs, delay), topics=entries),
        Role(
            name="worker",
            configure=_names(own_control),
            write=_names(jobs, delay, retry, outcomes, dead, quarantine, own_control),
            read=_names(rf"leveret\.({work})", rf"{quarantine}\.({work})", control, own_control),
            topics={**entries, RETRY: later},
        ),
        Role(name="recorder", read=_names(ledger, rf"{dead}\.({work})", unroutable)),
        Role(name="api", write=_names(control), tags=("monitoring",)),
        Role(name="monitor", tags=("monitoring",)),
    )
    return {role.name: role for role in roles}


#: The roles for the work queues that Leveret has unless told otherwise.
ROLES = roles_for(DEFAULT_QUEUES)
