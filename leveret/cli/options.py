"""Lists of options that several commands have, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any

__all__ = ["taking"]


def taking(
    source: Callable[..., Any], *, without: Collection[str] = (), made: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that are ``source``'s parameters, in front of its own options.

    The command gets as its first argument what ``source`` makes of them. Arguments of the command
    itself stay in front. Typer reads the signature that this leaves on it. ``made`` is the name of
    the value's class, if only the type checker imports it.
    """
    options = inspect.signature(source, locals={made: Any}, eval_str=True).parameters
    wanted = [option for name, option in options.items() if name not in without]

    def give(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, locals={made: Any}, eval_str=True)
        own = list(signature.parameters.values())[1:]
        required = [option for option in own if option.default is option.empty]
        rest = [option for option in own if option.default is not option.empty]
        parameters = [*required, *wanted, *rest]

        @wraps(command)
        def run(**given: Any) -> None:
            chosen = {option.name: given.pop(option.name) for option in wanted}
            command(source(**chosen), **given)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in parameters}
        return run

    return give
