"""The options that say what a schedule is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from leveret.cli.options import taking
from leveret.errors import ConfigurationError
from leveret.schedules.definition import Definition

__all__ = ["Given", "describing", "timing"]

_Text = str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What is given of a schedule, as `leveret.schedules.form` takes it."""

    fields: Mapping[str, Any]
    #: Arguments and options that are given one by one.
    added: Mapping[str, Mapping[str, Any]]

    def over(self, definition: Definition | None = None) -> dict[str, Any]:
        """Return the fields; what is given one by one is added to what ``definition`` has."""
        fields = dict(self.fields)
        for name, pairs in self.added.items():
            there = fields.get(name)
            if there is None and definition is not None:
                there = getattr(definition, name)
            fields[name] = {**(there if isinstance(there, Mapping) else {}), **pairs}
        return fields


def _fields(
    actor: Annotated[_Text, typer.Option(help="The actor, such as email.send.")] = None,
    cron: Annotated[
        _Text, typer.Option(help="Five fields, or six with seconds first: '0 9 * * MON-FRI'.")
    ] = None,
    every: Annotated[_Text, typer.Option(help="An interval: 90s, 15m, 1h30m.")] = None,
    at: Annotated[_Text, typer.Option(help="One time: 2026-03-29T09:00.")] = None,
    tz: Annotated[
        _Text, typer.Option(help="The time zone of --cron and of times; UTC without.")
    ] = None,
    anchor: Annotated[_Text, typer.Option(help="A time from which --every counts.")] = None,
    skipped: Annotated[
        _Text,
        typer.Option("--dst-skipped", help="A time that clocks leave out: skip, or next."),
    ] = None,
    doubled: Annotated[
        _Text,
        typer.Option("--dst-doubled", help="A time that clocks show twice: first, or both."),
    ] = None,
    arguments: Annotated[
        _Text, typer.Option(help="The actor's arguments, a JSON object; - reads standard input.")
    ] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="One of them, JSON or plain text; repeatedly."),
    ] = None,
    queue: Annotated[_Text, typer.Option(help="The pool that runs the jobs.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Of the jobs: priority=5, max_retries=0; repeatedly."
        ),
    ] = None,
    jitter: Annotated[
        _Text, typer.Option(help="Publish each up to so much later than its slot: 30s.")
    ] = None,
    start: Annotated[_Text, typer.Option(help="No slot before this time.")] = None,
    end: Annotated[_Text, typer.Option(help="No slot after this time.")] = None,
    missed: Annotated[
        _Text, typer.Option(help="Slots that passed unled: skip, once (the latest), or all.")
    ] = None,
    window: Annotated[
        _Text, typer.Option(help="Skip slots that are older in any case: 6h.")
    ] = None,
    overlap: Annotated[
        _Text, typer.Option(help="While an earlier job has not ended: allow, skip, or queue.")
    ] = None,
    description: Annotated[_Text, typer.Option(help="For people.")] = None,
) -> Given:
    """Take together what is given."""
    named = dict(locals())
    named["arguments"] = None if arguments is None else _document(arguments)
    added = {"arguments": _pairs("argument", argument), "options": _pairs("option", option)}
    for name in ("argument", "option"):
        named.pop(name)
    fields = {name: value for name, value in named.items() if value is not None}
    return Given(fields=fields, added={name: pairs for name, pairs in added.items() if pairs})


#: What only a whole schedule has.
_OTHERS = (
    "actor",
    "arguments",
    "argument",
    "queue",
    "option",
    "jitter",
    "missed",
    "window",
    "overlap",
    "description",
)


def describing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all these options; it gets a `Given` first."""
    return taking(_fields)(command)


def timing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command those of these options that say when; it gets a `Given` first."""
    return taking(_fields, without=_OTHERS)(command)


def _document(text: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--arguments is not JSON: {error}") from None


def _pairs(option: str, words: list[str] | None) -> dict[str, Any]:
    found = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise ConfigurationError(f"--{option} is NAME=VALUE, not {word!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
