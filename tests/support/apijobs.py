"""Actors for the tests of the HTTP API; none of them is ever run."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

import leveret


class Item(BaseModel):
    """What is ordered."""

    sku: str
    count: int = 1


@leveret.actor("order.ship", queue="critical")
def ship(order: int, to: str, items: list[Item] | None = None, *, gift: bool = False) -> None:
    """Ship an order."""


@leveret.actor("order.keep", queue="bulk")
def keep(value: Any = None) -> None:
    """Keep whatever it is."""


@leveret.actor("order.note")
def note(text: str = "") -> None:
    """Take a note."""
