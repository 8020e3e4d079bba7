"""``leveret dead``: look through dead letters, replay them, or set them aside."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leveret.cli.common import AsJson, guarded, moment
from leveret.cli.selection import LAST_ID, ActorOption, ReasonOption, selecting
from leveret.errors import ConfigurationError

if TYPE_CHECKING:
    from leveret.deadletters import Selection

# What reads the database is imported by the command that does: it costs the others a third of a
# second.

app = typer.Typer(
    no_args_is_help=True, help="Jobs that were given up, and what is done about them."
)

AllOption = Annotated[bool, typer.Option("--all", help="All that are open.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
LimitOption = Annotated[int, typer.Option(min=1, max=500, help="At most so many.")]
AfterOption = Annotated[str | None, typer.Option(help="Go on behind this cursor of a page.")]


def _chosen(selection: Selection, *, everything: bool) -> Selection:
    """Refuse to take all dead letters for want of a filter."""
    if selection.is_everything and not everything:
        raise ConfigurationError(
            "say which dead letters: by id, by --group or another filter, or --all"
        )
    if everything and not selection.is_everything:
        raise ConfigurationError("--all and a filter are two answers to the same question")
    return selection


@app.command()
@guarded
def groups(
    actor: ActorOption = None,
    reason: ReasonOption = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=moment, help="Seen for the first time since then, or since 90m, 2h."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those in which nothing is open.")
    ] = False,
    by_open: Annotated[
        bool, typer.Option("--by-open", help="Most open first, instead of the latest.")
    ] = False,
    limit: LimitOption = 50,
    after: AfterOption = None,
    as_json: AsJson = False,
) -> None:
    """List what goes wrong: dead letters with the same cause are one line."""
    from leveret.cli import deadview  # noqa: PLC0415

    deadview.groups(
        order="open" if by_open else "latest",
        only_open=not everything,
        actor=actor,
        reason=reason,
        since=since,
        limit=limit,
        after=after,
        as_json=as_json,
    )


@app.command("list")
@guarded
@selecting(by_id=False)
def list_letters(
    selection: Selection,
    state: Annotated[
        str, typer.Option(help="open, replaying, replayed, discarded, superseded, or any.")
    ] = "open",
    limit: LimitOption = 50,
    after: AfterOption = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the latest first."""
    from leveret.cli import deadview  # noqa: PLC0415

    deadview.letters(selection, state=state, limit=limit, after=after, as_json=as_json)


@app.command()
@guarded
def show(
    letter_id: Annotated[
        int, typer.Argument(metavar="ID", min=1, max=LAST_ID, help="The dead letter.")
    ],
    body: Annotated[
        bool, typer.Option("--body", help="Write the original's bytes, and nothing else.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a dead letter with everything: its message, its error, and the history of its job."""
    from leveret.cli import deadview  # noqa: PLC0415

    deadview.show(letter_id, body=body, as_json=as_json)


@app.command()
@guarded
@selecting(by_id=True)
def replay(
    selection: Selection,
    everything: AllOption = False,
    rate: Annotated[
        float | None, typer.Option(help="Jobs per second; as fast as it goes without.")
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(
            help="Other arguments, as a JSON merge patch: makes new jobs, and has to be allowed "
            "by LEVERET_EDITED_REPLAY."
        ),
    ] = None,
    yes: YesOption = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait until all are published.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the jobs have ended, too.")
    ] = False,
    follow: Annotated[
        int | None,
        typer.Option(metavar="REPLAY", min=1, max=LAST_ID, help="Follow this replay, start none."),
    ] = None,
    cancel: Annotated[
        int | None,
        typer.Option(metavar="REPLAY", min=1, max=LAST_ID, help="Stop this replay, start none."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run jobs again that were given up; each keeps its id, and has all attempts ahead of it.

    The exit status is 1 when some are refused, or die again while --wait waits for them.
    """
    from leveret.cli import deadview  # noqa: PLC0415

    if follow is not None or cancel is not None:
        if everything or not selection.is_everything or None not in (follow, cancel):
            raise ConfigurationError("--follow and --cancel stand alone: they name a replay")
        if cancel is not None:
            deadview.cancel(cancel, as_json=as_json)
        elif follow is not None:
            deadview.follow(follow, wait=wait, as_json=as_json)
        return
    deadview.replay(
        _chosen(selection, everything=everything),
        rate=rate,
        edits=None if edit is None else _edits(edit),
        yes=yes,
        detach=detach,
        wait=wait,
        as_json=as_json,
    )


def _edits(text: str) -> dict[str, Any]:
    try:
        document = json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"--edit is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError('--edit is a JSON object, such as {"to": "ada@example.com"}')
    return document


@app.command()
@guarded
@selecting(by_id=True)
def discard(
    selection: Selection,
    everything: AllOption = False,
    note: Annotated[
        str | None, typer.Option(help="Why, for whoever asks later; kept in the audit log.")
    ] = None,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Set dead letters aside for good; they can still be looked at."""
    from leveret.cli import deadview  # noqa: PLC0415

    deadview.discard(_chosen(selection, everything=everything), note=note, yes=yes, as_json=as_json)


@app.command()
@guarded
def replays(limit: LimitOption = 20, after: AfterOption = None, as_json: AsJson = False) -> None:
    """List replays: who, when, which, and how far they are."""
    from leveret.cli import deadview  # noqa: PLC0415

    deadview.replays(limit=limit, after=after, as_json=as_json)
