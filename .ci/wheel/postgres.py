"""The tables, the migrations and the outbox, with ``leveret[postgres]``."""

# ruff: noqa: S101, PT017 - a program that fails is what is wanted

from __future__ import annotations

import importlib

from leveret.store import engine, metadata, migrate, outbox

assert migrate.head() >= "0002", "the migrations are part of the wheel"
assert "leveret_outbox" in metadata.tables
assert "CREATE TABLE IF NOT EXISTS leveret_outbox" in outbox.script()
owner = engine("postgresql://nobody@127.0.0.1:1/none")
try:
    migrate.current(owner)
except Exception as error:  # noqa: BLE001 - whatever SQLAlchemy makes of it
    assert "127.0.0.1" in str(error), error
owner.dispose()
for module in ("leveret.results", "leveret.claims.session", "leveret.deadletters"):
    importlib.import_module(module)
