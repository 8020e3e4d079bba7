"""Declaring an actor and calling it, with ``leveret[worker]``."""

# ruff: noqa: S101, PT017 - a program that fails is what is wanted

from __future__ import annotations

import importlib
from datetime import timedelta

import leveret
from leveret.broker import get_broker
from leveret.schedules import Every, Schedule


@leveret.actor(
    "email.send", schedule=Schedule(Every(timedelta(days=1)), arguments={"to": "b@example.com"})
)
def send(to: str) -> str:
    """Return to whom it would have gone."""
    return f"to {to}"


assert send(to="ada@example.com") == "to ada@example.com"
assert get_broker().actors["email.send"].queue_name == "default"
for module in ("leveret.asyncapi", "leveret.logs", "leveret.metrics", "leveret.worker.worker"):
    importlib.import_module(module)
try:
    importlib.import_module("leveret.store")
except ImportError as error:
    assert "install leveret[postgres]" in str(error), error
else:
    raise AssertionError("leveret.store works without leveret[postgres]")
