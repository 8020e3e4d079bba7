"""The table of claims for a service's own database, where the effects of its jobs are."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from leveret.store.schema import metadata

__all__ = ["ddl"]


def ddl() -> str:
    """Return the statements that create what is missing, for a migration of the service."""
    table = metadata.tables["claims"]
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    made: list[ExecutableDDLElement] = [
        CreateTable(table, if_not_exists=True),
        *(CreateIndex(index, if_not_exists=True) for index in indexes),
    ]
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    statements = [str(statement.compile(dialect=dialect)).strip() for statement in made]
    text = "".join(f"{statement};\n" for statement in statements).replace("\t", "    ")
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
