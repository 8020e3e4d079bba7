"""``leveret keys``: who may use the HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from leveret.cli.common import AsJson, guarded, print_json, print_table
from leveret.errors import ConfigurationError
from leveret.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

app = typer.Typer(no_args_is_help=True, help="Who may use the HTTP API.")


@contextmanager
def _transaction() -> Iterator[Connection]:
    from leveret.store import engine  # noqa: PLC0415 - the other commands need no SQLAlchemy

    made = engine(Settings.from_env().require_database_url(), pool_size=1)
    try:
        with made.begin() as connection:
            yield connection
    finally:
        made.dispose()


@app.command("create")
@guarded
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, or whose it is.")],
    scope: Annotated[
        list[str], typer.Option(help="publish, read, operate or admin; may be given repeatedly.")
    ],
    days: Annotated[
        float | None, typer.Option(help="Days until it expires; never, without.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, the one time that it can be seen."""
    from leveret.store import api_keys, audit_log  # noqa: PLC0415

    try:
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    except OverflowError:
        raise ConfigurationError(f"--days {days} leads to no date in the calendar") from None
    who = audit_log.operator()
    with _transaction() as connection:
        key, token = api_keys.create(
            connection, name=name, scopes=scope, created_by=who, expires_at=expires_at
        )
        audit_log.record(
            connection,
            who=who,
            action="key.create",
            target=key.id,
            detail={"name": key.name, "scopes": list(key.scopes)},
        )
    if as_json:
        print_json({**asdict(key), "token": token})
    else:
        print(token)
        print(
            f"key {key.id} ({', '.join(key.scopes)}); keep it now, it is not shown again",
            file=sys.stderr,
        )


@app.command("list")
@guarded
def listing(as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    from leveret.store import api_keys  # noqa: PLC0415

    with _transaction() as connection:
        keys = api_keys.listing(connection)
    now = datetime.now(UTC)
    if as_json:
        print_json([{**asdict(key), "state": key.fault(now) or "valid"} for key in keys])
        return
    print_table(
        ("id", "name", "scopes", "state", "expires", "last used"),
        [
            (
                key.id,
                key.name,
                ",".join(key.scopes),
                key.fault(now) or "valid",
                _moment(key.expires_at),
                _moment(key.last_used_at),
            )
            for key in keys
        ],
    )


@app.command("revoke")
@guarded
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, the part between the lines.")],
    as_json: AsJson = False,
) -> None:
    """End a key's validity, within seconds and for good."""
    from leveret.store import api_keys, audit_log  # noqa: PLC0415

    with _transaction() as connection:
        key = api_keys.revoke(connection, key_id)
        if key is not None:
            audit_log.record(
                connection, who=audit_log.operator(), action="key.revoke", target=key.id
            )
    if key is None:
        print(f"leveret: there is no key {key_id!r}; see `leveret keys list`", file=sys.stderr)
        raise typer.Exit(1)
    if as_json:
        print_json(asdict(key))
    else:
        print(f"key {key.id} ({key.name}) is revoked")


def _moment(time: datetime | None) -> str:
    return "-" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M}"
