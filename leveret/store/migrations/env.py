"""How Alembic runs the migrations: on the connection that it is given."""

from __future__ import annotations

from typing import Any

from alembic import context

from leveret.store.partition import is_partition
from leveret.store.schema import metadata


def include(name: str | None, kind: str, _parents: Any) -> bool:
    """Leave partitions out of comparisons; their parents stand for them."""
    return kind != "table" or name is None or not is_partition(name)


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_name=include,
    compare_server_default=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
