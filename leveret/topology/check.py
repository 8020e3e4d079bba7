"""What stands in the broker, held against the topology table and the roles. No sockets here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leveret.topology.roles import Role
from leveret.topology.table import Binding, Topology

__all__ = ["Difference", "compare", "compare_permissions"]


@dataclass(frozen=True, kw_only=True, order=True)
class Difference:
    """One thing that is not as the table wants it."""

    #: ``missing``, ``different`` or ``unexpected``.
    kind: str
    #: What it is: ``queue leveret.default``, say.
    what: str
    #: How it differs, where it does.
    detail: str = ""
    #: The binding, if it is one.
    binding: Binding | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}" + (f" ({self.detail})" if self.detail else "")


def compare(
    topology: Topology,
    *,
    exchanges: Iterable[Mapping[str, Any]],
    queues: Iterable[Mapping[str, Any]],
    bindings: Iterable[Mapping[str, Any]],
    policies: Iterable[Mapping[str, Any]],
) -> list[Difference]:
    """Compare the table with the management API's lists of one virtual host.

    Objects whose names do not start with ``leveret.`` are somebody else's, and so are workers' own
    control queues; a policy that exists is the operators' to tune.
    """
    found: list[Difference] = []
    wanted_exchanges = {
        e.name: {"type": e.kind, "durable": True, "arguments": e.arguments}
        for e in topology.exchanges
    }
    found += _objects("exchange", wanted_exchanges, exchanges)
    wanted_queues = {
        q.name: {"durable": True, "arguments": dict(q.arguments)} for q in topology.queues
    }
    found += _objects("queue", wanted_queues, queues)
    wanted = set(topology.bindings)
    present = {
        Binding(
            source=b["source"],
            destination=b["destination"],
            to_exchange=b["destination_type"] == "exchange",
            key=b["routing_key"],
        )
        for b in bindings
        if b["source"].startswith("leveret.") and not _is_control(b["destination"])
    }
    for kind, difference in (("missing", wanted - present), ("unexpected", present - wanted)):
        found += [
            Difference(
                kind=kind,
                what=f"binding {binding.source} -> {binding.destination}",
                detail=f"key {binding.key!r}",
                binding=binding,
            )
            for binding in difference
        ]
    names = {policy["name"] for policy in policies}
    found += [
        Difference(kind="missing", what=f"policy {policy.name}")
        for policy in topology.policies
        if policy.name not in names
    ]
    return sorted(found)


def compare_permissions(
    roles: Iterable[Role],
    *,
    permissions: Iterable[Mapping[str, Any]],
    topic_permissions: Mapping[str, Mapping[str, tuple[str, str]]],
) -> list[Difference]:
    """Compare the roles with what `Management` tells of one virtual host.

    ``topic_permissions`` are those of each user, as `Management.topic_permissions` returns them. A
    topic exchange for which a user has none takes every routing key from it, and RabbitMQ 4.3
    forgets those of an exchange that is deleted. Users of other names are somebody else's; a user
    without any permission here is not used here.
    """
    found: list[Difference] = []
    granted = {entry["user"]: entry for entry in permissions}
    for role in roles:
        if role.user not in granted:
            continue
        details = [
            f"{right}: wanted {getattr(role, right)!r}, found {granted[role.user].get(right)!r}"
            for right in ("configure", "write", "read")
            if getattr(role, right) != granted[role.user].get(right)
        ]
        if details:
            found.append(
                Difference(
                    kind="different", what=f"permissions of {role.user}", detail="; ".join(details)
                )
            )
        present = topic_permissions.get(role.user, {})
        for exchange in role.topics.keys() | present.keys():
            wanted = role.topics.get(exchange)
            there, _read = present.get(exchange, (None, None))
            if wanted != there:
                found.append(_topic_permission(f"{role.user} on {exchange}", wanted, there))
    return sorted(found)


def _topic_permission(where: str, wanted: str | None, there: str | None) -> Difference:
    what = f"topic permission of {where}"
    if there is None:
        return Difference(kind="missing", what=what, detail="it may publish any routing key")
    if wanted is None:
        return Difference(kind="unexpected", what=what, detail=f"only {there!r}")
    return Difference(kind="different", what=what, detail=f"wanted {wanted!r}, found {there!r}")


def _objects(
    kind: str, wanted: Mapping[str, Mapping[str, Any]], present: Iterable[Mapping[str, Any]]
) -> list[Difference]:
    there = {
        thing["name"]: thing
        for thing in present
        if thing["name"].startswith("leveret.") and not _is_control(thing["name"])
    }
    differences = [
        Difference(kind="missing", what=f"{kind} {name}") for name in wanted.keys() - there.keys()
    ]
    differences += [
        Difference(kind="unexpected", what=f"{kind} {name}")
        for name in there.keys() - wanted.keys()
    ]
    for name in wanted.keys() & there.keys():
        details = [
            f"{field}: wanted {value!r}, found {there[name].get(field)!r}"
            for field, value in wanted[name].items()
            if field != "arguments" and there[name].get(field) != value
        ]
        arguments, found = wanted[name]["arguments"], there[name].get("arguments", {})
        details += [
            f"{argument}: wanted {arguments.get(argument)!r}, found {found.get(argument)!r}"
            for argument in sorted(arguments.keys() | found.keys())
            if arguments.get(argument) != found.get(argument)
        ]
        if details:
            differences.append(
                Difference(kind="different", what=f"{kind} {name}", detail="; ".join(details))
            )
    return differences


def _is_control(name: str) -> bool:
    return name.startswith("leveret.control.")
