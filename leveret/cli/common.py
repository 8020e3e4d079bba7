"""What the commands share."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import pika.exceptions
import psycopg
import sqlalchemy.exc
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leveret import declaration
from leveret.broker import LeveretBroker
from leveret.errors import ConfigurationError, LeveretError
from leveret.settings import Settings

__all__ = [
    "AsJson",
    "confirm",
    "guarded",
    "load_actors",
    "moment",
    "print_json",
    "print_table",
    "vhost_of",
]

P = ParamSpec("P")
R = TypeVar("R")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

console = Console(highlight=False, soft_wrap=True)
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: Columns of an output that is no terminal.
_WIDE = 10_000


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what Leveret raises into one line on standard error and an exit status."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConfigurationError as error:
            print(f"leveret: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except LeveretError as error:
            print(f"leveret: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except pika.exceptions.AMQPError as error:
            print(
                f"leveret: no connection to the broker ({error!r}); check LEVERET_AMQP_URL",
                file=sys.stderr,
            )
            raise typer.Exit(1) from None
        except (sqlalchemy.exc.OperationalError, psycopg.OperationalError) as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            print(
                f"leveret: no connection to the database ({reason}); check LEVERET_DATABASE_URL",
                file=sys.stderr,
            )
            raise typer.Exit(1) from None

    return run


def load_actors(settings: Settings) -> LeveretBroker:
    """Import the modules of ``LEVERET_ACTORS``, also from the working directory."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return declaration.load_actors(
        settings.actors, queues=settings.queues, housekeeping=settings.housekeeping
    )


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether that is meant, unless ``yes``; leave the command when it is not."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody can be asked here; --yes says that it is meant")
    typer.confirm(question, abort=True, err=True)


def vhost_of(url: str) -> str:
    """Return the virtual host that an AMQP URL names."""
    path = urlsplit(url.split(",", maxsplit=1)[0]).path
    return unquote(path[1:]) or "/"


def print_json(document: object) -> None:
    """Print a document for programs."""
    print(json.dumps(document, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows for people; a line each where it goes to a file or a program."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row))
    wide = Console(highlight=False, soft_wrap=True, width=_WIDE)
    (console if console.is_terminal else wide).print(table)


def one_line(values: Mapping[str, Any]) -> str:
    """Write a mapping in one line."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def moment(text: str) -> datetime:
    """Read a time, or how long ago it was."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither a time such as 2026-01-31T12:00 nor how long ago, such as 90m"
        ) from None
