"""``leveret retention``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from leveret.cli.common import AsJson, guarded, print_json, print_table
from leveret.settings import Settings

__all__ = ["retention"]


@guarded
def retention(
    days: Annotated[
        int | None, typer.Option(min=1, help="Instead of LEVERET_RETENTION_DAYS.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be dropped and deleted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drop the days that are no longer kept, and what else has had its time; jobs that live stay.

    Safe on a live system, and safe to break off. Exit status 1 when days had to be put off.
    """
    from leveret.store import engine  # noqa: PLC0415 - the other commands need no SQLAlchemy
    from leveret.store import retention as rounds  # noqa: PLC0415

    settings = Settings.from_env()
    keep = timedelta(days=settings.retention_days if days is None else days)
    database = engine(settings.require_listen_url(), pool_size=2, application="leveret retention")
    try:
        report = rounds.run(database, keep=keep, dry_run=dry_run)
    finally:
        database.dispose()
    if as_json:
        print_json({**asdict(report), "dry_run": dry_run})
    elif report.busy:
        print("another process cleans up at the moment; nothing was done")
    else:
        rows: list[tuple[str, object]] = [
            *(("day", day.isoformat()) for day in report.days),
            *(("put off", day.isoformat()) for day in report.postponed),
            *((table, count) for table, count in report.deleted.items() if count),
        ]
        if report.refiled:
            rows.append(("jobs that live, moved to today", report.refiled))
        if rows:
            print_table(("would be dropped" if dry_run else "dropped", ""), rows)
        else:
            print(f"nothing is older than {keep.days} days")
    if report.postponed:
        raise typer.Exit(1)
