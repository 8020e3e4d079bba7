"""The options that say which dead letters a command is about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from leveret.cli.common import moment
from leveret.cli.options import taking

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

    ``by_id`` tells whether ids are among the options.
    """
    return taking(_selection, without=() if by_id else ("ids",), made="Selection")
