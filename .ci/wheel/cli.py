"""The command ``leveret``, with ``leveret[cli]``."""

# ruff: noqa: S101 - a program that fails is what is wanted

from __future__ import annotations

import subprocess
import sys


def leveret(*words: str) -> str:
    """Run the command; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "leveret", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"LEVERET_AMQP_URL": "amqp://shop:secret@127.0.0.1/%2F", "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


assert leveret("--version") == f"leveret {sys.argv[1]}\n"
assert "schedules" in leveret("--help")
shown = leveret("settings", "--json")
assert "shop" in shown
assert "secret" not in shown
assert "CREATE TABLE IF NOT EXISTS leveret_outbox" in leveret("outbox", "ddl")
