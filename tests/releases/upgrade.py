"""What a migration must leave: rows, and what older processes do with the tables. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["Columns", "Rows", "dangers", "harm", "lost", "older"]

#: Of each table: of each column its type, whether it may be null, and whether it may be left out.
Columns = Mapping[str, Mapping[str, tuple[str, bool, bool]]]
Rows = Mapping[str, Iterable[Mapping[str, str | None]]]

_INSERT = re.compile(r"INSERT INTO (\w+) ")


def lost(before: Rows, after: Rows) -> set[str]:
    """Return the tables in which a row is gone, or has another value in one of its old columns."""
    found = set()
    for table, rows in before.items():
        if table == "alembic_version":
            continue
        there = list(after.get(table, ()))
        for row in rows:
            if not any(row.items() <= other.items() for other in there):
                found.add(table)
    return found


def harm(before: Columns, after: Columns) -> set[str]:
    """Return what breaks the statements of a release that still runs on the migrated tables.

    It reads and writes the columns that it knows: they stay, with their types; none of them may be
    null no more that was; and a column that it does not know may be left out.
    """
    found = set()
    for table, had in before.items():
        has = after.get(table)
        if has is None:
            found.add(f"{table} is gone")
            continue
        for name, (kind, nullable, omissible) in had.items():
            if name not in has:
                found.add(f"{table}.{name} is gone")
                continue
            other, may_be_null, may_be_left_out = has[name]
            if other != kind:
                found.add(f"{table}.{name} was {kind}, and is {other}")
            if nullable and not may_be_null:
                found.add(f"{table}.{name} must not be null any more")
            if omissible and not may_be_left_out:
                found.add(f"{table}.{name} must be given now")
        for name in has.keys() - had.keys():
            if not has[name][2]:
                found.add(f"{table}.{name} is new, and must be given")
    return found


def older(text: str, schema: Iterable[str], tables: Iterable[str]) -> str:
    """Make the database of an older release up: an older schema, and the rows that fit into it."""
    known = set(tables) - {"alembic_version"}
    rows = [
        line
        for line in text.splitlines(keepends=True)
        if ((found := _INSERT.match(line)) and found[1] in known)
        or (line.startswith("SELECT setval") and line.split("'")[1] in known)
    ]
    return "".join([*(f"{statement};\n" for statement in schema), *rows])


#: What in a statement is in the way of processes of the release before, and why.
_DANGERS = (
    (r"\bDROP (TABLE|COLUMN|TYPE|VIEW|FUNCTION|TRIGGER)\b", "what they use is gone"),
    (r"\bRENAME\b", "what they use has another name"),
    (r"\bALTER COLUMN \S+ (SET DATA )?TYPE\b", "the table is written anew under a lock"),
    (r"\bSET NOT NULL\b", "the table is read under a lock, and what they write may be refused"),
    (r"\bADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL\b", "what they write is refused"),
    (
        r"\bADD CONSTRAINT (?!.*\bNOT VALID\b).*\b(CHECK|FOREIGN KEY)\b",
        "the table is read under a lock; add it NOT VALID, and validate it afterwards",
    ),
    (
        r"\bADD CONSTRAINT .*\b(UNIQUE|PRIMARY KEY|EXCLUDE)\b(?!.*\bUSING INDEX\b)",
        "an index is built under a lock",
    ),
    (
        r"^CREATE (UNIQUE )?INDEX (?!CONCURRENTLY\b)(?!.*\bON ONLY\b)",
        (
            "writers wait while the index is built; build it CONCURRENTLY, or ON ONLY a "
            "partitioned table and attach those of its partitions"
        ),
    ),
    (r"^(UPDATE|DELETE|TRUNCATE|LOCK|CLUSTER|VACUUM|REINDEX)\b", "rows or tables stay locked"),
)
_CREATES = re.compile(r"^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\S+)")
_TOUCHES = re.compile(r"\b(?:ON ONLY|ON|TABLE|UPDATE|FROM|TRUNCATE|INTO)\s+(?:IF EXISTS )?([\w.]+)")


def dangers(statements: Iterable[str]) -> list[str]:
    """Return what a migration does that the processes of the release before would suffer from.

    Tables that it makes itself are nobody's yet. A migration may take away what the release before
    did not use any more: it says so by ``unused_since = "1.2.0"``, and then this is not asked.
    """
    found, made = [], {"alembic_version"}
    for statement in statements:
        text = " ".join(statement.split())
        if (creates := _CREATES.match(text)) is not None:
            made.add(creates[1])
            continue
        touched = _TOUCHES.search(text)
        if touched is not None and touched[1] in made:
            continue
        found += [
            f"{text[:90]}: {why}"
            for pattern, why in _DANGERS
            if re.search(pattern, text, re.IGNORECASE)
        ]
    return found
