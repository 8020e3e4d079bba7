"""`leveret keys`: make, list and revoke the keys to the HTTP API."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from leveret.cli.app import app
from leveret.store import api_keys, engine
from leveret.store.schema import AuditEntry


@pytest.fixture
def leveret(ledger_database, monkeypatch):
    """Return a function that runs the command on a database with tables."""
    monkeypatch.setenv("LEVERET_DATABASE_URL", ledger_database)
    return lambda *words: CliRunner().invoke(app, ["keys", *words])


def test_a_key_is_made_listed_and_revoked(leveret, ledger_database):
    """It is printed once, alone on standard output, so that a script can keep it."""
    made = leveret("create", "shop", "--scope", "publish", "--scope", "read", "--days", "30")
    token = made.stdout.strip()
    key_id, secret = api_keys.parse(token)
    listed = leveret("list", "--json")
    assert secret not in listed.stdout
    (found,) = [key for key in json.loads(listed.stdout) if key["id"] == key_id]
    assert (found["name"], found["scopes"], found["state"]) == (
        "shop",
        ["publish", "read"],
        "valid",
    )
    assert found["created_by"].startswith("cli:")
    assert leveret("revoke", key_id).exit_code == 0
    assert leveret("revoke", key_id).exit_code == 0
    owner = engine(ledger_database, pool_size=1)
    with owner.begin() as connection:
        assert api_keys.verify(connection, token).revoked_at is not None
        assert api_keys.verify(connection, f"lv_{key_id}_{'0' * 64}") is None
        actions = connection.execute(
            select(AuditEntry.action).where(AuditEntry.target == key_id).order_by(AuditEntry.id)
        ).scalars()
        assert list(actions) == ["key.create", "key.revoke", "key.revoke"]
    owner.dispose()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("create", "x", "--scope", "root"), 2),
        (("create", "", "--scope", "read"), 2),
        (("create", "x", "--scope", "read", "--days", "-1"), 2),
        (("create", "x", "--scope", "read", "--days", "1e99"), 2),
        (("create", "x"), 2),
        (("revoke", "nosuch"), 1),
    ],
)
def test_what_makes_no_sense_is_refused(leveret, words, status):
    """With the status that scripts look at."""
    assert leveret(*words).exit_code == status
