"""``leveret outbox``: the table with which a service publishes in its own transactions."""

from __future__ import annotations

import typer

from leveret.cli.common import guarded

app = typer.Typer(no_args_is_help=True, help="Publishing in the transaction of business data.")


@app.command("ddl")
@guarded
def ddl() -> None:
    """Print the table as SQL for a service's own database; running it again changes nothing."""
    from leveret.store.outbox import script  # noqa: PLC0415 - the other commands need no SQLAlchemy

    print(script(), end="")
