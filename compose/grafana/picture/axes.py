"""The axes of what is drawn over time: marks of time, units, logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullFormatter

from compose.grafana.picture.colors import DIM, LINE
from compose.grafana.picture.series import Series
from compose.grafana.unit import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["grid", "spread"]

#: Seconds between marks on the axis of time.
_TICKS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)


def grid(axes: Axes, unit: str, *, logarithmic: bool) -> None:
    """Draw the grid, with times below and values of a unit at the left."""
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=LINE, linewidth=0.7)
    axes.tick_params(colors=DIM, labelsize=7.5, length=0, pad=5, which="both")
    start, end = axes.get_xlim()
    room = axes.get_window_extent().width / 62
    every = next((size for size in _TICKS if (end - start) / size <= room), _TICKS[-1])
    axes.set_xticks(np.arange(math.ceil(start / every) * every, end, every))
    axes.xaxis.set_major_formatter(
        lambda time, _position: datetime.fromtimestamp(time, UTC).strftime("%H:%M")
    )
    if not logarithmic:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=3))
    axes.yaxis.set_major_formatter(lambda value, _position: written(value, unit))
    axes.yaxis.set_minor_formatter(NullFormatter())


def spread(axes: Axes, series: Sequence[Series], scale: Mapping[str, Any], unit: str) -> None:
    """Make the axis of values logarithmic, with marks that suit its unit."""
    known = np.concatenate([one.values for one in series] or [np.ones(1)])
    known = known[np.isfinite(known) & (known > 0)]
    low, top = (known.min(), known.max()) if len(known) else (0.1, 1.0)
    if scale["type"] == "symlog":
        low = scale["linearThreshold"]
        axes.set_yscale("symlog", linthresh=low, linscale=0.6)
        axes.set_ylim(0, max(top * 2, low * 10))
    else:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.6, top * 1.6)
        low = low / 1.6
    decades = [10.0**power for power in range(-6, 13)]
    if unit == "s":
        decades = [*(mark for mark in decades if mark < 60), 60, 600, 3600, 36000, 86400]
    for marks in (decades, [mark * n for mark in decades for n in (1, 2, 5)]):
        inside = [mark for mark in marks if low <= mark <= top * 1.6]
        if len(inside) >= 3:
            break
    marks = inside if len(inside) < 8 else inside[::2]
    axes.set_yticks([0, *marks] if scale["type"] == "symlog" else marks)
