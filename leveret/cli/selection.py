"""The options that say which dead letters a command is about."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leveret.cli.common import moment

if TYPE_CHECKING:
    from leveret.deadletters import Selection

__all__ = ["LAST_ID", "ActorOption", "ReasonOption", "selecting"]

#: The largest id of a row.
LAST_ID = 2**63 - 1

Ids = Annotated[
    list[int] | None,
    typer.Argument(min=1, max=LAST_ID, help="Ids, as `leveret dead list` shows them."),
]
GroupOption = Annotated[
    str | None, typer.Option("--group", help="A fingerprint, or how it begins.")
]
JobOption = Annotated[str | None, typer.Option("--job", help="The job's id.")]
ActorOption = Annotated[str | None, typer.Option(help="The actor, such as email.send.")]
QueueOption = Annotated[str | None, typer.Option(help="The pool in which it died.")]
ReasonOption = Annotated[str | None, typer.Option(help="Such as exhausted, or bad-arguments.")]
ErrorOption = Annotated[str | None, typer.Option(help="Words of the error.")]
SinceOption = Annotated[
    datetime | None, typer.Option(parser=moment, help="Dead since a time, or since 90m, 2h, 3d.")
]
UntilOption = Annotated[datetime | None, typer.Option(parser=moment, help="Dead before it.")]


def _selection(
    ids: Ids = None,
    group: GroupOption = None,
    job: JobOption = None,
    actor: ActorOption = None,
    queue: QueueOption = None,
    reason: ReasonOption = None,
    error: ErrorOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> Selection:
    """Make the selection; its parameters are the options of each command that selects."""
    from leveret.deadletters import Selection  # noqa: PLC0415 - the others need no SQLAlchemy

    return Selection(
        ids=tuple(ids) if ids else None,
        fingerprint=group,
        job_id=job,
        actor=actor,
        queue=queue,
        reason=reason,
        error=error,
        since=since,
        until=until,
    )


def selecting(*, by_id: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that select, in front of its own; it gets a `Selection` first.

    Typer reads the signature that this leaves on the command. ``by_id`` tells whether ids are among
    the options.
    """
    options = inspect.signature(_selection, locals={"Selection": Any}, eval_str=True).parameters
    wanted = [option for name, option in options.items() if by_id or name != "ids"]

    def give(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, locals={"Selection": Any}, eval_str=True)
        own = list(signature.parameters.values())[1:]

        @wraps(command)
        def run(**given: Any) -> None:
            chosen = {option.name: given.pop(option.name) for option in wanted}
            command(_selection(**chosen), **given)

        run.__signature__ = signature.replace(parameters=[*wanted, *own])  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in (*wanted, *own)}
        return run

    return give
