"""A number in the colour of its threshold, with its course behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from compose.grafana.answer import Window
from compose.grafana.picture.colors import DIM, lit
from compose.grafana.picture.page import DPI, Box, Page
from compose.grafana.picture.series import Answer, Series
from compose.grafana.unit import written

__all__ = ["stat"]


def stat(page: Page, box: Box, panel: Mapping[str, Any], answer: Answer, window: Window) -> None:
    """Draw the newest value of the first series."""
    defaults = panel["fieldConfig"]["defaults"]
    series = answer.series[0] if answer.series else None
    value = math.nan if series is None else series.last
    text = written(value, defaults["unit"], defaults.get("decimals"))
    for mapping in defaults.get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {"text": text})["text"]
    color = DIM if math.isnan(value) else lit(defaults["thresholds"], value)
    if series is not None and len(series.times) > 1:
        _course(page, box, series, window, color)
    number, _, unit = text.partition(" ")
    size = min(25, (box.w - 22) / (0.72 * len(number) + 0.4 * len(unit)) * 72 / DPI)
    y = box.y + box.h * 0.46
    if not unit:
        page.text(box.x + box.w / 2, y, number, size=size, bold=True, color=color, align="center")
        return
    wide = len(number) * size * 0.72 * DPI / 72
    narrow = len(unit) * size * 0.58 * 0.66 * DPI / 72
    x = box.x + (box.w - wide - narrow - 6) / 2
    page.text(x + wide, y, number, size=size, bold=True, color=color, align="right")
    page.text(x + wide + 6, y + size * 0.22, unit, size=size * 0.58, bold=True, color=color)


def _course(page: Page, box: Box, series: Series, window: Window, color: str) -> None:
    axes = page.axes(box.inside(1, box.h * 0.66, 1, 1))
    axes.set_xticks([])
    axes.set_yticks([])
    values = np.where(np.isfinite(series.values), series.values, np.nan)
    top, low = np.nanmax(values, initial=0), np.nanmin(values, initial=0)
    axes.set_ylim(low, top * 1.1 if top > low else low + 1)
    axes.set_xlim(window.start, window.end)
    axes.fill_between(series.times, values, low, color=color, alpha=0.18, linewidth=0)
    axes.plot(series.times, values, color=color, linewidth=1)
