"""The colours of Grafana's dark look, and those that thresholds give to values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["BORDER", "DIM", "LINE", "LINK", "PAGE", "PALETTE", "PANEL", "TEXT", "lit", "named"]

PAGE, PANEL, BORDER, LINE = "#111217", "#181b1f", "#2c2f36", "#2a2d33"
TEXT, DIM, LINK = "#d5d7dc", "#9297a3", "#6E9FFF"
#: The order in which Grafana gives colours to series.
PALETTE = (
    *("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#705DA0"),
    *("#37872D", "#FADE2A", "#447EBC", "#C15C17", "#890F02"),
)
_NAMES = {
    "green": "#73BF69",
    "yellow": "#FADE2A",
    "red": "#F2495C",
    "blue": "#5794F2",
    "orange": "#FF9830",
    "purple": "#B877D9",
    "dark-red": "#C4162A",
}


def named(color: str) -> str:
    """Return the colour that Grafana calls so, or that is written so."""
    return _NAMES.get(color, color)


def lit(thresholds: Mapping[str, Any], value: float) -> str:
    """Return the colour of a value by thresholds."""
    steps = thresholds["steps"]
    color = steps[0]["color"]
    for step in steps:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return named(color)
