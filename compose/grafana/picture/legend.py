"""How series are told apart: their styles, and the table of their names and values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compose.grafana.picture.colors import DIM, LINK, PALETTE, named
from compose.grafana.picture.page import Box, Page
from compose.grafana.picture.series import Series
from compose.grafana.unit import written

__all__ = ["Style", "legend", "style_of"]


@dataclass(frozen=True)
class Style:
    """How a line looks."""

    color: str
    dashed: bool


def style_of(panel: Mapping[str, Any], position: int, name: str) -> Style:
    """Return the style of a series: what overrides say of its name, or the palette's next."""
    color, dashed = PALETTE[position % len(PALETTE)], False
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        pattern = matcher["options"]
        matches = pattern == name if matcher["id"] == "byName" else bool(re.search(pattern, name))
        for prop in override["properties"] if matches else ():
            if prop["id"] == "color":
                color = named(prop["value"]["fixedColor"])
            elif prop["id"] == "custom.lineStyle":
                dashed = True
    return Style(color, dashed)


def legend(
    page: Page, box: Box, series: Sequence[Series], styles: Sequence[Style], unit: str
) -> float:
    """Write the table of the series at the right; return how wide it is."""
    if not series:
        page.no_data(box)
        return 0
    numbers = [(written(one.last, unit), written(one.most, unit)) for one in series]
    last, most = (6.1 * max(4, *(len(pair[n]) for pair in numbers)) + 12 for n in (0, 1))
    wide = min(box.w * 0.5, 6.3 * max(5, *(len(one.name) for one in series)) + 26 + last + most)
    room = int((wide - 18 - last - most) / 5.9)
    x, y = box.x + box.w - wide, box.y + 36
    right = x + wide - 10
    for title, place, align in (
        ("Name", x + 14, "left"),
        ("Last", right - most, "right"),
        ("Max", right, "right"),
    ):
        page.text(place, y, title, size=7, color=LINK, bold=True, align=align)
    shown = list(zip(series, styles, numbers, strict=True))
    fit = int((box.h - 52) / 16.5)
    for one, style, (newest, largest) in shown[: fit if len(shown) <= fit else fit - 1]:
        y += 16.5
        page.stroke(x, y + 1.5, 9, 3, style.color)
        name = one.name if len(one.name) <= room else one.name[: room - 1] + "…"
        page.text(x + 14, y, name, size=7.5)
        page.text(right - most, y, newest, size=7.5, align="right")
        page.text(right, y, largest, size=7.5, align="right")
    if len(shown) > fit:
        page.text(x + 14, y + 16.5, f"and {len(shown) - fit + 1} more", size=7.5, color=DIM)
    return wide
