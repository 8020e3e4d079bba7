"""``leveret migrate``."""

from __future__ import annotations

from leveret.cli.common import AsJson, guarded, print_json
from leveret.settings import Settings

__all__ = ["migrate"]


@guarded
def migrate(as_json: AsJson = False) -> None:
    """Bring the database to this release's schema, and make partitions; safe on a live system."""
    from leveret.store import engine  # noqa: PLC0415 - the other commands need no SQLAlchemy
    from leveret.store.migrate import upgrade  # noqa: PLC0415

    database = engine(
        Settings.from_env().require_listen_url(), pool_size=1, application="leveret migrate"
    )
    try:
        before, after = upgrade(database)
    finally:
        database.dispose()
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        print(f"the database is at revision {after}")
    else:
        print(f"the database went from revision {before or 'none'} to {after}")
