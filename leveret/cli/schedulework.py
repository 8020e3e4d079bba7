"""What ``leveret schedules`` changes: check, ask, act, print."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from leveret.broker import LeveretBroker
from leveret.cli.common import confirm, load_actors, print_json, print_table
from leveret.cli.scheduleview import (
    document,
    headline,
    print_slots,
    schedule_of,
    time_in_zone,
    transaction,
)
from leveret.cli.scheduling import Given
from leveret.errors import ConfigurationError, UnknownSchedule
from leveret.schedules import backfill as backfilling
from leveret.schedules import form, store
from leveret.schedules.check import check_here
from leveret.schedules.declared import gather
from leveret.schedules.definition import Definition
from leveret.schedules.reconcile import Change
from leveret.schedules.reconcile import reconcile as reconcile_rows
from leveret.schedules.row import StoredSchedule
from leveret.schedules.run import Fired
from leveret.schedules.run import run as run_now
from leveret.settings import Settings
from leveret.store import audit_log

__all__ = ["add", "backfill", "change", "pause", "reconcile", "remove", "resume", "run"]

#: Slots that are fired in one transaction.
_AT_ONCE = 500
#: So many are shown before the question.
_SHOWN = 20


def _say(words: str) -> None:
    """Tell people, not programs."""
    print(words, file=sys.stderr)


def _print(found: StoredSchedule, verb: str, *, as_json: bool) -> None:
    if as_json:
        with transaction() as connection:
            print_json(document(found, store.database_time(connection), fires=5))
    else:
        print(f"schedule {found.name} is {verb}; {headline(found)}")


def _check_here(definition: Definition, settings: Settings) -> None:
    """Refuse what makes no sense in this configuration; warn of what cannot be checked."""
    actors: LeveretBroker | None = None
    try:
        actors = load_actors(settings)
    except ConfigurationError as error:
        _say(f"the arguments are not checked: {error}")
        check_here(definition, queues=settings.queues, actors=None)
        return
    for warning in check_here(definition, queues=settings.queues, actors=actors):
        _say(f"note: {warning}")


def add(name: str, given: Given, *, as_json: bool) -> None:
    """Make a schedule."""
    settings = Settings.from_env()
    definition = form.read(name, given.over())
    _check_here(definition, settings)
    with transaction(settings) as connection:
        made = store.create(
            connection, definition, by=audit_log.operator(), limit=settings.max_body_bytes
        )
    _print(made, "made", as_json=as_json)


def change(name: str, given: Given, *, without: Sequence[str], as_json: bool) -> None:
    """Change what is given."""
    settings = Settings.from_env()
    if not given.fields and not given.added and not without:
        raise ConfigurationError("say what is to change: --cron, --queue, --argument, …")
    for field in without:
        if field.replace("-", "_") not in form.FIELDS:
            raise ConfigurationError(f"--without {field}: there are {', '.join(form.FIELDS)}")
    taken = {field.replace("-", "_"): None for field in without}
    with transaction(settings) as connection:
        # Not locked while actors are loaded; whoever comes between is seen below.
        found = store.get(connection, name)
    if found is None:
        raise UnknownSchedule(name)
    _check_here(form.merge(found.definition, taken | given.over(found.definition)), settings)
    with transaction(settings) as connection:
        found = store.get(connection, name, lock=True)
        if found is None:
            raise UnknownSchedule(name)
        changed = store.change(
            connection,
            name,
            form.merge(found.definition, taken | given.over(found.definition)),
            by=audit_log.operator(),
            limit=settings.max_body_bytes,
        )
    same = changed.version == found.version
    _print(changed, "as it was" if same else "changed", as_json=as_json)


def remove(name: str, *, as_json: bool) -> None:
    """Remove a schedule."""
    with transaction() as connection:
        store.remove(connection, name, by=audit_log.operator())
    if as_json:
        print_json({"removed": name})
    else:
        print(f"schedule {name} is removed")


def pause(name: str, *, as_json: bool) -> None:
    """Pause a schedule."""
    with transaction() as connection:
        found = store.pause(connection, name, by=audit_log.operator())
    _print(found, "paused", as_json=as_json)


def resume(name: str, *, as_json: bool) -> None:
    """Resume a schedule."""
    with transaction() as connection:
        found = store.resume(connection, name, by=audit_log.operator())
    _print(found, "active", as_json=as_json)


def run(name: str, *, as_json: bool) -> None:
    """Publish its job now."""
    with transaction() as connection:
        fired = run_now(connection, name, by=audit_log.operator())
    if as_json:
        print_json(_fired(fired))
    else:
        print(fired.job_id)


# ----------------------------------------------------------------------------------------- backfill


def backfill(
    name: str,
    *,
    begin: str,
    until: str | None,
    limit: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what would be fired, ask, and fire it in parts."""
    settings = Settings.from_env()
    with transaction(settings) as connection:
        now = store.database_time(connection)
        zone = schedule_of(connection, name).definition.trigger.zone
        planned = backfilling.plan(
            connection,
            name,
            start=time_in_zone("from", begin, zone, now),
            end=now if until is None else time_in_zone("to", until, zone, now),
            limit=limit,
        )
    if not as_json:
        _print_plan(planned)
    if dry_run:
        if as_json:
            print_json({**_plan(planned), "jobs": [_fired(job) for job in planned.jobs]})
        return
    backfilling.refuse_if_more(planned)
    fired: list[Fired] = []
    if planned.slots:
        confirm(f"Publish {_jobs(len(planned.slots))}?", yes=yes)
        fired = _fire(planned, settings, quiet=as_json)
    if as_json:
        print_json({**_plan(planned), "jobs": [_fired(job) for job in fired]})
    elif planned.slots:
        print(f"{_jobs(len(fired))} published")


def _fire(planned: backfilling.Plan, settings: Settings, *, quiet: bool) -> list[Fired]:
    fired: list[Fired] = []
    console = Console(stderr=True)
    slots = planned.slots
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = quiet or not console.is_terminal or len(slots) <= _AT_ONCE
    with Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task("published", total=len(slots))
        for first in range(0, len(slots), _AT_ONCE):
            part = slots[first : first + _AT_ONCE]
            with transaction(settings) as connection:
                fired += backfilling.fire(connection, planned, part, by=audit_log.operator())
            bar.update(task, advance=len(part))
    return fired


def _print_plan(planned: backfilling.Plan) -> None:
    zone = planned.definition.trigger.zone
    print_slots(zone, [(job.slot, job.job_id) for job in planned.jobs][:_SHOWN])
    if len(planned.slots) > _SHOWN:
        print(f"… and {len(planned.slots) - _SHOWN:,} more")
    more = f", and more than --limit {len(planned.slots)}" if planned.more else ""
    print(f"{_jobs(len(planned.slots))} to publish{more}; {planned.fired:,} were fired before")


def _plan(planned: backfilling.Plan) -> dict[str, object]:
    return {
        "schedule": planned.definition.name,
        "from": planned.start.isoformat(),
        "to": planned.end.isoformat(),
        "fired_before": planned.fired,
        "more": planned.more,
    }


def _fired(fired: Fired) -> dict[str, str]:
    return {"slot": fired.slot.isoformat(), "job_id": fired.job_id}


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------------------------- reconcile


def reconcile(*, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make the rows what is declared; ask before some are removed."""
    settings = Settings.from_env()
    found = gather(load_actors(settings), settings)
    for warning in found.warnings:
        _say(f"note: {warning}")

    def once(*, dry: bool) -> list[Change]:
        with transaction(settings) as connection:
            return reconcile_rows(
                connection,
                found.schedules,
                by=audit_log.operator(),
                dry_run=dry,
                limit=settings.max_body_bytes,
            )

    changes = once(dry=True)
    if not dry_run and changes:
        gone = [change.name for change in changes if change.action == "removed"]
        if gone:
            confirm(f"Remove {', '.join(gone)}, which nothing declares any more?", yes=yes)
        changes = once(dry=False)
    if as_json:
        print_json([asdict(change) for change in changes])
        return
    _print_changes(changes, dry_run=dry_run)


def _print_changes(changes: Iterable[Change], *, dry_run: bool) -> None:
    rows = [(c.name, c.origin, c.action, ", ".join(c.fields) or "-") for c in changes]
    if rows:
        print_table(("schedule", "origin", "would be" if dry_run else "is", "in"), rows)
    else:
        print("the schedules are what is declared")
