"""``leveret schedules``: when which jobs are published, and what became of it."""

from __future__ import annotations

from typing import Annotated

import typer

from leveret.cli.common import AsJson, guarded
from leveret.cli.scheduling import Given, describing, timing
from leveret.errors import ConfigurationError

# What reads the database is imported by the command that does: it costs the others a third of a
# second.

app = typer.Typer(no_args_is_help=True, help="When which jobs are published by themselves.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.")]
NextOption = Annotated[
    int, typer.Option("--next", min=0, max=100, help="Show so many fires to come.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
_SLOTS = 10_000


@app.command("list")
@guarded
def list_schedules(
    actor: Annotated[str | None, typer.Option(help="The actor, such as email.send.")] = None,
    origin: Annotated[str | None, typer.Option(help="code, file, or api (made by hand).")] = None,
    state: Annotated[str | None, typer.Option(help="active, or paused.")] = None,
    fires: NextOption = 5,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on behind the schedule NAME.")] = None,
    as_json: AsJson = False,
) -> None:
    """List schedules, with their next fires in their own zone and in UTC."""
    from leveret.cli import scheduleview  # noqa: PLC0415

    if origin not in (None, "code", "file", "api"):
        raise ConfigurationError(f"--origin is code, file or api, not {origin!r}")
    if state not in (None, "active", "paused"):
        raise ConfigurationError(f"--state is active or paused, not {state!r}")
    scheduleview.listing(
        actor=actor,
        origin=origin,
        paused=None if state is None else state == "paused",
        fires=fires,
        limit=limit,
        after=after,
        as_json=as_json,
    )


@app.command()
@guarded
def show(name: Name, fires: NextOption = 5, as_json: AsJson = False) -> None:
    """Show all that is known of a schedule."""
    from leveret.cli import scheduleview  # noqa: PLC0415

    scheduleview.show(name, fires=fires, as_json=as_json)


@app.command()
@guarded
@describing
def add(given: Given, name: Name, as_json: AsJson = False) -> None:
    """Make a schedule: an --actor, and --cron, --every or --at."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.add(name, given, as_json=as_json)


@app.command()
@guarded
@describing
def change(
    given: Given,
    name: Name,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Take away what is set: end, window, queue, …; repeatedly."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a schedule, and nothing else."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.change(name, given, without=without or [], as_json=as_json)


@app.command()
@guarded
def remove(name: Name, as_json: AsJson = False) -> None:
    """Remove a schedule that was made by hand; what it did stays known."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.remove(name, as_json=as_json)


@app.command()
@guarded
def pause(name: Name, as_json: AsJson = False) -> None:
    """Publish nothing for a schedule until it is resumed."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.pause(name, as_json=as_json)


@app.command()
@guarded
def resume(name: Name, as_json: AsJson = False) -> None:
    """Go on with a schedule; what passed while it was paused is skipped."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.resume(name, as_json=as_json)


@app.command()
@guarded
def run(name: Name, as_json: AsJson = False) -> None:
    """Publish a schedule's job now, beside its slots, and print the job's id."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.run(name, as_json=as_json)


@app.command()
@guarded
@timing
def preview(
    given: Given,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="The schedule; or say when.")
    ] = None,
    begin: Annotated[
        str | None, typer.Option("--from", help="A time in the zone, or 2d ago; now without.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="A time, too.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_SLOTS, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the slots of any period, of a schedule or of --cron, with changes of clocks marked."""
    from leveret.cli import scheduleview  # noqa: PLC0415

    scheduleview.preview(name, given, begin=begin, until=until, limit=limit, as_json=as_json)


@app.command()
@guarded
def backfill(
    name: Name,
    begin: Annotated[str, typer.Option("--from", help="A time in the zone, or 2d ago.")],
    until: Annotated[
        str | None, typer.Option("--to", help="A time that is past; now without.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=_SLOTS, help="Refuse a range with more slots than this.")
    ] = 100,
    dry_run: DryRun = False,
    yes: YesOption = False,
    as_json: AsJson = False,
) -> None:
    """Publish the jobs of past slots for which nothing was published; show them first."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.backfill(
        name, begin=begin, until=until, limit=limit, dry_run=dry_run, yes=yes, as_json=as_json
    )


@app.command()
@guarded
def history(
    name: Name,
    outcome: Annotated[
        list[str] | None, typer.Option(help="fired, skipped or queued; also several.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Slots since a time in the zone, or since 2d.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Slots before it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on behind this cursor of a page.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what became of a schedule's slots, the latest first, each with its job."""
    from leveret.cli import scheduleview  # noqa: PLC0415

    scheduleview.history(
        name,
        outcomes=outcome or [],
        since=since,
        until=until,
        limit=limit,
        after=after,
        as_json=as_json,
    )


@app.command()
@guarded
def reconcile(dry_run: DryRun = False, yes: YesOption = False, as_json: AsJson = False) -> None:
    """Make the schedules what LEVERET_ACTORS and LEVERET_SCHEDULES declare, as a scheduler does."""
    from leveret.cli import schedulework  # noqa: PLC0415

    schedulework.reconcile(dry_run=dry_run, yes=yes, as_json=as_json)
