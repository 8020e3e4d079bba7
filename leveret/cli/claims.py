"""``leveret claims``: what has its effects once."""

from __future__ import annotations

import typer

from leveret.cli.common import guarded

app = typer.Typer(no_args_is_help=True, help="What has its effects once.")


@app.callback()
def _claims() -> None:
    """Make a group of what is a single command so far."""


@app.command()
@guarded
def ddl() -> None:
    """Print the table of claims as SQL, for the database that has the effects of jobs."""
    from leveret.claims.ddl import ddl  # noqa: PLC0415 - the other commands need no SQLAlchemy

    print(ddl(), end="")
