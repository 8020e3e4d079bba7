"""How the counts of a histogram's buckets change: a field of colour for each bucket and time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

from compose.grafana.answer import Window
from compose.grafana.picture.axes import grid
from compose.grafana.picture.colors import DIM, PANEL
from compose.grafana.picture.page import Box, Page
from compose.grafana.picture.series import Answer, moments
from compose.grafana.unit import written

__all__ = ["heatmap"]


def heatmap(page: Page, box: Box, panel: Mapping[str, Any], answer: Answer, window: Window) -> None:
    """Draw the buckets that are used, and the scale of their colours."""
    del panel
    bounds = sorted(answer.series, key=lambda one: float(one.labels["le"]))
    times = moments(bounds)
    if not times:
        page.no_data(box)
        return
    upto = np.array([np.nan_to_num(one.at(times), posinf=0.0) for one in bounds])
    each = np.diff(upto, axis=0, prepend=0)
    each = np.where((each > 1e-9) & np.isfinite(each), each, np.nan)
    used = np.flatnonzero(~np.all(np.isnan(each), axis=1))
    first, last = (used[0], used[-1]) if len(used) else (0, len(bounds) - 1)
    each, names = each[first : last + 1], [one.labels["le"] for one in bounds[first : last + 1]]
    axes = page.axes(box.inside(62, 32, 92, 26))
    edges = np.append(np.array(times), times[-1] + window.step)
    mesh = axes.pcolormesh(
        edges,
        np.arange(len(names) + 1),
        each,
        cmap="turbo",
        norm=PowerNorm(0.5, vmin=0, vmax=float(np.nanmax(each)) if len(used) else 1),
        linewidth=0.4 if len(times) < 60 else 0,
        edgecolor=PANEL,
    )
    axes.set_xlim(window.start, window.end)
    every = max(1, math.ceil(len(names) / 9))
    grid(axes, "s", logarithmic=True)
    axes.grid(visible=False)
    axes.set_yticks(np.arange(len(names))[::every] + 0.5)
    axes.set_yticklabels(
        ["more" if math.isinf(float(le)) else written(float(le), "s") for le in names[::every]]
    )
    bar = page.axes(Box(box.x + box.w - 78, box.y + 36, 10, box.h - 66))
    legend = page.figure.colorbar(mesh, cax=bar)
    legend.outline.set_visible(False)
    bar.tick_params(colors=DIM, labelsize=7, length=0)
    bar.yaxis.set_major_locator(MaxNLocator(nbins=4))
    bar.yaxis.set_major_formatter(lambda value, _position: written(value, "suffix:/s"))
