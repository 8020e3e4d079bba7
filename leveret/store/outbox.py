"""The outbox's table as SQL, for a database that is a service's own.

Written from the same model that the migrations are checked against, and idempotent: it may be run
at every start of a service, and takes no lock where everything stands. Needs SQLAlchemy.
"""

from __future__ import annotations

from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from leveret.store.schema import OutboxRow

__all__ = ["script", "statements"]

# Two instances of a service may start at once.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('leveret_outbox'))"
_FUNCTION = """\
CREATE OR REPLACE FUNCTION leveret_outbox_notify() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('leveret_outbox', ''); RETURN NULL; END $$"""
_TRIGGER = """\
DO $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'leveret_outbox'::regclass AND tgname = 'leveret_outbox_notify'
    ) THEN
        CREATE TRIGGER leveret_outbox_notify AFTER INSERT ON leveret_outbox
        FOR EACH STATEMENT EXECUTE FUNCTION leveret_outbox_notify();
    END IF;
END $$"""


def statements() -> list[str]:
    """Return the statements, in their order, for PostgreSQL 13 and later."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    table = OutboxRow.__table__
    made = [CreateTable(table, if_not_exists=True).compile(dialect=dialect)]  # type: ignore[arg-type]
    made += [
        CreateIndex(index, if_not_exists=True).compile(dialect=dialect)
        for index in sorted(table.indexes, key=lambda index: str(index.name))  # type: ignore[attr-defined]
    ]
    return [_LOCK, *(_tidy(str(statement)) for statement in made), _FUNCTION, _TRIGGER]


def _tidy(statement: str) -> str:
    lines = (line.replace("\t", "    ").rstrip() for line in statement.splitlines())
    return "\n".join(line for line in lines if line)


def script() -> str:
    """Return the statements as one script, which is one transaction."""
    return "".join(f"{statement};\n\n" for statement in ["BEGIN", *statements()]) + "COMMIT;\n"
