"""The table of claims for a service's own database, where the effects of its jobs are."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from leveret.store.schema import Claim

__all__ = ["ddl"]


def ddl() -> str:
    """Return the statements that create what is missing, for a migration of the service."""
    table = Claim.__table__
    made = [CreateTable(table, if_not_exists=True)]  # type: ignore[arg-type]
    indexes = sorted(table.indexes, key=lambda index: str(index.name))  # type: ignore[attr-defined]
    statements = [
        str(statement.compile(dialect=postgresql.dialect())).strip()  # type: ignore[no-untyped-call]
        for statement in (*made, *(CreateIndex(index, if_not_exists=True) for index in indexes))
    ]
    return "".join(
        "\n".join(line.rstrip().replace("\t", "    ") for line in statement.splitlines()) + ";\n"
        for statement in statements
    )
