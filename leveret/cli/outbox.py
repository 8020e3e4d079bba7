"""``leveret outbox``: the table with which a service publishes in its own transactions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from leveret.cli.common import AsJson, guarded, print_json, print_table
from leveret.errors import ConfigurationError
from leveret.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

app = typer.Typer(no_args_is_help=True, help="Publishing in the transaction of business data.")

_SHOWN_ERROR = 120


@app.command("ddl")
@guarded
def ddl() -> None:
    """Print the table as SQL for a service's own database; running it again changes nothing."""
    from leveret.store.outbox import script  # noqa: PLC0415 - the other commands need no SQLAlchemy

    print(script(), end="")


@app.command("list")
@guarded
def list_entries(
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what cannot be published, with its error.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many of each.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the jobs that no relay has published yet, in the order in which they leave.

    Those of all of LEVERET_OUTBOX_URLS, as a relay has them; without it of LEVERET_DATABASE_URL.
    """
    from leveret.store.outboxes import entries  # noqa: PLC0415

    found = []
    for label, url in _outboxes(Settings.from_env()):
        with _transaction(label, url) as connection:
            found += [(label, entry) for entry in entries(connection, failed=failed, limit=limit)]
    if as_json:
        print_json([{"database": label, **asdict(entry)} for label, entry in found])
        return
    if not found:
        print("nothing failed" if failed else "the outbox is empty")
        return
    now = datetime.now(UTC)
    print_table(
        ("job", "actor", "queue", "database", "age", "state", "error"),
        [
            (
                entry.job_id,
                entry.actor,
                entry.queue or "-",
                label,
                f"{max(0.0, (now - entry.created_at).total_seconds()):.0f} s",
                entry.standing,
                " ".join((entry.error or "-").split())[:_SHOWN_ERROR],
            )
            for label, entry in found
        ],
    )


@app.command("retry")
@guarded
def retry(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[JOB]...", help="The ids of the jobs.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that failed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have relays publish what failed, once its cause is mended; what still cannot be fails again.

    Exit status 1 when one of the jobs is not in an outbox, or has not failed.
    """
    from leveret.store import audit_log  # noqa: PLC0415
    from leveret.store.outboxes import release  # noqa: PLC0415

    if bool(job_ids) == every:
        raise ConfigurationError("name the jobs, or say --all")
    settings = Settings.from_env()
    wanted = None if every else list(dict.fromkeys(job_ids or ()))
    released: list[str] = []
    for label, url in _outboxes(settings):
        with _transaction(label, url) as connection:
            done = release(connection, wanted)
            released += done
            if url == settings.database_url:  # another service's database has no audit log
                audit_log.record_many(
                    connection,
                    who=audit_log.operator(),
                    action="outbox.retry",
                    targets={job_id: {} for job_id in done},
                )
    unknown = [job_id for job_id in wanted or () if job_id not in released]
    if as_json:
        print_json({"retried": released, "unknown": unknown})
    else:
        print(f"{len(released):,} job{'' if len(released) == 1 else 's'} will be tried again")
        for job_id in unknown:
            print(f"{job_id} has not failed in any outbox here", file=sys.stderr)
    if unknown:
        raise typer.Exit(1)


def _outboxes(settings: Settings) -> list[tuple[str, str]]:
    """Return the databases with an outbox that a relay serves, each with its name."""
    from leveret.store.engine import labels_of  # noqa: PLC0415

    urls = [url for url, _ in settings.outboxes()]
    return list(zip(labels_of(urls), urls, strict=True))


@contextmanager
def _transaction(label: str, url: str) -> Iterator[Connection]:
    import psycopg  # noqa: PLC0415
    from sqlalchemy.exc import ProgrammingError  # noqa: PLC0415

    from leveret.store import engine  # noqa: PLC0415

    made = engine(url, pool_size=1, application="leveret outbox")
    try:
        with made.begin() as connection:
            yield connection
    except ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.UndefinedTable):
            raise
        raise ConfigurationError(
            f"the database {label} has no table leveret_outbox; `leveret outbox ddl` prints it"
        ) from None
    finally:
        made.dispose()
