"""Bars, the longest first, each in the colour of its threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from compose.grafana.answer import Window
from compose.grafana.picture.colors import PANEL, lit
from compose.grafana.picture.page import Box, Page
from compose.grafana.picture.series import Answer
from compose.grafana.unit import written

__all__ = ["bars"]

#: The colour of what a bar leaves empty.
_EMPTY = "#22252b"


def bars(page: Page, box: Box, panel: Mapping[str, Any], answer: Answer, window: Window) -> None:
    """Draw a bar for the newest value of each series."""
    del window
    defaults = panel["fieldConfig"]["defaults"]
    series = sorted(answer.series, key=lambda one: one.last, reverse=True)
    if not series:
        page.no_data(box)
        return
    area = box.inside(12, 34, 12, 10)
    axes = page.axes(area, bare=True)
    least = defaults.get("min", 0)
    finite = [one.last for one in series if math.isfinite(one.last)]
    most = defaults.get("max") or max([*finite, 1e-9])
    name_wide = min(area.w * 0.42, max(len(one.name) for one in series) * 6.4 + 14)
    value_wide = 62
    each = min(area.h / len(series), 34)
    full = area.w - name_wide - value_wide
    for position, one in enumerate(series):
        y, tall = position * each + 2, each - 5
        color = lit(defaults["thresholds"], one.last)
        share = (one.last - least) / (most - least or 1)
        share = 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0)
        axes.add_patch(Rectangle((name_wide, y), full, tall, facecolor=_EMPTY, linewidth=0))
        axes.imshow(
            np.linspace(0.35, 1, 64)[None, :],
            extent=(name_wide, name_wide + max(full * share, 1.5), y + tall, y),
            aspect="auto",
            zorder=2,
            cmap=LinearSegmentedColormap.from_list("bar", [PANEL, color]),
            vmin=0,
            vmax=1,
        )
        middle = y + tall / 2
        axes.text(name_wide - 8, middle, one.name, ha="right", va="center", fontsize=8)
        axes.text(
            area.w - 2,
            middle,
            written(one.last, defaults["unit"], defaults.get("decimals")),
            ha="right",
            va="center",
            fontsize=9,
            color=color,
            fontweight="bold",
        )
    axes.set_xlim(0, area.w)
    axes.set_ylim(area.h, 0)
