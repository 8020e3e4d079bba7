"""What a user names: all that a release may not take away without saying so."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from dataclasses import fields, is_dataclass
from enum import EnumType
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import typer.main
import yaml

from actors import settings as actor_settings
from docs.tools import library
from leveret import asyncapi, names
from leveret.broker import unwrapped
from leveret.cli.app import app
from leveret.declaration import load_actors
from leveret.housekeeping.actors import SHIPPED
from leveret.message import HEADERS, PREFIX, Reason
from leveret.settings import Settings
from leveret.store import metadata
from leveret.store.api_keys import Scope
from leveret.topology import ROLES, build
from services.api import create_app
from services.api.problem import Kind
from tests.support.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PUBLIC", "collect", "openapi", "topology", "vanished"]

#: The modules that others import: those of the page of the library, and those that other pages
#: show. The rest is ours to change.
PUBLIC = (*library.MODULES, "leveret.broker", "leveret.errors", "leveret.tracing")
#: Parameters that only we give.
_NOT_FOR_USERS = {"self", *library._INTERNAL_PARAMETERS}

Surface = dict[str, dict[str, Any]]


def collect() -> Surface:
    """Return all names of this tree, by their kind; what is behind a name is for people to read."""
    return {
        "settings": dict(sorted(_settings())),
        "commands": dict(_commands(typer.main.get_command(app), "leveret")),
        "metrics": dict(sorted(_metrics())),
        "alerts": dict(sorted(_alerts())),
        "headers": {PREFIX + name: dict(header.schema) for name, header in HEADERS.items()},
        "reasons": {str(reason): None for reason in sorted(Reason)},
        "problems": {kind.word: kind.status for kind in Kind},
        "scopes": {str(scope): None for scope in Scope},
        "names": dict(_public_names()),
        "extras": _extras(),
        "users": {role.user: None for role in ROLES.values()},
        "schedules": {shipped.name: None for shipped in SHIPPED},
        "tables": {
            f"{table.name}.{column.name}": str(column.type)
            for table in metadata.sorted_tables
            if table.name in ("leveret_outbox", "claims")  # those that users' own programs write
            for column in table.columns
        },
    }


def vanished(old: Surface, new: Surface) -> set[str]:
    """Return what is in ``old`` and not in ``new``: ``settings: LEVERET_AMQP_URL``, and so on.

    Of a command and of a function also its options and parameters, of a metric its labels.
    """
    return _flat(old) - _flat(new)


def _flat(surface: Surface) -> set[str]:
    found = set()
    for kind, named in surface.items():
        for name, parts in named.items():
            found.add(f"{kind}: {name}")
            if isinstance(parts, list):
                found |= {f"{kind}: {name} {part}" for part in parts}
    return found


def openapi() -> dict[str, Any]:
    """Return the document that the HTTP API of this tree serves."""
    url = "postgresql://nobody@127.0.0.1/none"
    document = create_app(Settings(database_url=url, actors=("actors",))).openapi()
    document["info"].pop("version", None)
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                # Each Python has its own words for some of them.
                if answer["description"] == HTTPStatus(int(status)).phrase:
                    answer["description"] = ""
    return document


def topology() -> dict[str, Any]:
    """Return what `leveret topology apply` of this tree declares with the actors in the box."""
    wanted = build(names.DEFAULT_QUEUES, _shipped_actors())
    return {
        "exchanges": [
            {"name": e.name, "type": e.kind, "arguments": e.arguments} for e in wanted.exchanges
        ],
        "queues": [{"name": q.name, "arguments": dict(q.arguments)} for q in wanted.queues],
        "bindings": [
            {"source": b.source, "key": b.key, "to": b.destination, "to_exchange": b.to_exchange}
            for b in wanted.bindings
        ],
        "policies": [
            {"name": p.name, "pattern": p.pattern, "definition": dict(p.definition)}
            for p in wanted.policies
        ],
    }


# -------------------------------------------------------------------------------- one kind each


def _settings() -> Iterator[tuple[str, str | None]]:
    for setting in fields(Settings):
        name = f"LEVERET_{setting.name.upper()}"
        yield name, None if setting.default is None else str(setting.default)
        if setting.metadata["secret"]:
            yield f"{name}_FILE", None
    for name in actor_settings.__all__:
        group = getattr(actor_settings, name)
        if is_dataclass(group):
            for item in fields(group):
                yield item.metadata["variable"], None


def _commands(command: Any, name: str) -> Iterator[tuple[str, list[str]]]:
    yield (
        name,
        sorted(
            word
            for parameter in command.params
            for word in (
                [*parameter.opts, *parameter.secondary_opts]
                if parameter.param_type_name == "option"
                else [f"<{parameter.name}>"]
            )
            if word != "--help"
        ),
    )
    for word, part in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(part, f"{name} {word}")


def _metrics() -> Iterator[tuple[str, list[str]]]:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()  # a test keeps it true
    for name, labels in re.findall(r"^\| `(leveret_\w+)` \|[^|]*\|([^|]*)\|", page, re.MULTILINE):
        yield name, sorted(re.findall(r"`(\w+)`", labels))


def _alerts() -> Iterator[tuple[str, None]]:
    for path in (ROOT / "compose" / "prometheus" / "rules").glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from ((rule.get("alert") or rule["record"], None) for rule in group["rules"])


def _public_names() -> Iterator[tuple[str, list[str]]]:
    for name in PUBLIC:
        module = importlib.import_module(name)
        for word in sorted(module.__all__):
            thing = getattr(module, word)
            yield f"{name}.{word}", _parameters(thing)
            if inspect.isclass(thing) and thing.__module__.startswith("leveret"):
                for method, function in sorted(inspect.getmembers(thing, inspect.isfunction)):
                    if not method.startswith("_"):
                        yield f"{name}.{word}.{method}", _parameters(function)


def _parameters(thing: object) -> list[str]:
    if isinstance(thing, EnumType):
        return sorted(member.name for member in thing)
    if not inspect.isfunction(thing) and not inspect.isclass(thing):
        return []
    if inspect.isclass(thing) and not thing.__module__.startswith("leveret"):
        return []
    try:
        found = inspect.signature(thing).parameters.values()
    except ValueError:
        return []
    hints = getattr(thing, "__annotations__", {})
    return sorted(
        {p.name for p in found if p.name not in _NOT_FOR_USERS and p.kind is not p.VAR_KEYWORD}
        | _unpacked(thing, found, hints)
    )


def _unpacked(thing: object, parameters: Any, hints: Mapping[str, Any]) -> set[str]:
    """Return what ``**options: Unpack[Options]`` takes."""
    for parameter in parameters:
        text = str(hints.get(parameter.name, ""))
        if parameter.kind is parameter.VAR_KEYWORD and text.startswith("Unpack["):
            module = importlib.import_module(getattr(thing, "__module__", ""))
            return set(inspect.get_annotations(getattr(module, text[7:-1])))
    return set()


def _shipped_actors() -> dict[str, str]:
    broker = load_actors(["actors"], queues=names.DEFAULT_QUEUES, housekeeping=True)
    return {
        actor.name: actor.queue
        for actor in asyncapi.describe(broker)
        if unwrapped(broker.actors[actor.name].fn).__module__.startswith(
            ("actors.", "leveret.housekeeping.")
        )
    }


def _extras() -> dict[str, None]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict.fromkeys([*project["optional-dependencies"], *project["scripts"]])
