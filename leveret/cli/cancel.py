"""``leveret jobs cancel`` and ``leveret jobs retry``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

import typer

from leveret.cli.common import AsJson, guarded, print_json
from leveret.errors import PublishError
from leveret.settings import Settings

__all__ = ["cancel", "register", "retry"]

R = TypeVar("R")

JobIds = Annotated[list[str], typer.Argument(help="Ids of jobs.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands to ``leveret jobs``."""
    app.command()(cancel)
    app.command()(retry)


@guarded
def cancel(job_ids: JobIds, as_json: AsJson = False) -> None:
    """Call jobs off before they start; exit status 1 if one runs already, or has ended.

    Needs the database, and a user of the broker that may write to leveret.control.
    """
    from leveret.control import ControlSender  # noqa: PLC0415 - the others need no SQLAlchemy
    from leveret.ledger.cancel import cancel as cancel_job  # noqa: PLC0415

    settings = Settings.from_env()
    broker = settings.require_amqp_url()
    results = _each(job_ids, cancel_job, settings.require_database_url())
    runs = {job_id: run for result in results for job_id, run in result.runs.items()}
    told = True
    if runs:
        with ControlSender(broker) as sender:
            try:
                sender.cancel(runs).result()
            except PublishError as error:
                told = False
                print(
                    f"leveret: the workers could not be told ({error}); they read it in the "
                    "database when they next connect",
                    file=sys.stderr,
                )
    _show(
        as_json,
        [
            {
                "job_id": result.job_id,
                "outcome": str(result.outcome),
                "state": result.state,
                "detail": result.detail,
            }
            for result in results
        ],
    )
    if not told or not all(result.is_accepted for result in results):
        raise typer.Exit(1)


@guarded
def retry(job_ids: JobIds, as_json: AsJson = False) -> None:
    """Run jobs again that are dead, cancelled or expired; exit status 1 if one is refused."""
    from leveret.ledger.retry import retry as retry_job  # noqa: PLC0415

    results = _each(job_ids, retry_job, Settings.from_env().require_database_url())
    _show(
        as_json,
        [
            {
                "job_id": result.job_id,
                "outcome": str(result.outcome),
                "replay_id": result.replay_id,
                "detail": result.detail,
            }
            for result in results
        ],
    )
    if not all(result.is_accepted for result in results):
        raise typer.Exit(1)


def _each(job_ids: Iterable[str], do: Callable[..., R], database_url: str) -> list[R]:
    """Do something for each job, in a transaction of its own, as whoever sits here."""
    from leveret.store import audit_log, engine  # noqa: PLC0415 - the others need no SQLAlchemy

    database = engine(database_url, pool_size=1)
    results = []
    try:
        for job_id in job_ids:
            with database.begin() as connection:
                results.append(do(connection, job_id, by=audit_log.operator()))
    finally:
        database.dispose()
    return results


def _show(as_json: bool, rows: Iterable[dict[str, Any]]) -> None:  # noqa: FBT001
    if as_json:
        print_json(list(rows))
        return
    for row in rows:
        print(f"{row['job_id']}  {row['outcome']}: {row['detail']}")
