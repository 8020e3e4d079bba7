"""Lines over time, one above the other or each by itself, with thresholds and exemplars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compose.grafana.answer import Window
from compose.grafana.picture.axes import grid, spread
from compose.grafana.picture.colors import LINK, named
from compose.grafana.picture.legend import Style, legend, style_of
from compose.grafana.picture.page import Box, Page
from compose.grafana.picture.series import Answer, Numbers, Series, moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["lines"]


def lines(page: Page, box: Box, panel: Mapping[str, Any], answer: Answer, window: Window) -> None:
    """Draw a line for each series, and the table of them."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    unit = defaults["unit"]
    series = answer.series
    styles = [style_of(panel, position, one.name) for position, one in enumerate(series)]
    wide = legend(page, box, series, styles, unit)
    axes = page.axes(box.inside(62, 32, wide + 16, 26))
    axes.set_xlim(window.start, window.end)
    scale = custom.get("scaleDistribution", {})
    logarithmic = scale.get("type") in ("log", "symlog")
    if custom.get("stacking", {}).get("mode") == "normal":
        _stack(axes, series, styles)
    else:
        for one, style in zip(series, styles, strict=True):
            _line(axes, one, style, scale.get("type"), window.step)
    if logarithmic:
        spread(axes, series, scale, unit)
    else:
        low, top = axes.get_ylim()
        top = max(top, custom.get("axisSoftMax", 0), 1e-9)
        axes.set_ylim(defaults.get("min", low), defaults.get("max", top))
    _exemplars(axes, answer.exemplars)
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        _thresholds(axes, defaults["thresholds"])
    grid(axes, unit, logarithmic=logarithmic)


def _line(axes: Axes, series: Series, style: Style, scale: str | None, step: float) -> None:
    values = np.where(np.isfinite(series.values), series.values, np.nan)
    if scale == "log":
        values = np.where(values > 0, values, np.nan)
    times, values = _with_gaps(series.times, values, step)
    axes.plot(
        times,
        values,
        color=style.color,
        linewidth=1.4,
        linestyle=(0, (5, 4)) if style.dashed else "solid",
        solid_capstyle="round",
    )
    if not style.dashed and scale not in ("log", "symlog"):
        axes.fill_between(times, values, 0, color=style.color, alpha=0.08, linewidth=0)


def _with_gaps(times: Numbers, values: Numbers, step: float) -> tuple[Numbers, Numbers]:
    """Break a line where points are missing."""
    missing = np.flatnonzero(np.diff(times) > 1.5 * step) + 1
    return (
        np.insert(times, missing, times[missing - 1] + step),
        np.insert(values.astype(float), missing, np.nan),
    )


def _stack(axes: Axes, series: Sequence[Series], styles: Sequence[Style]) -> None:
    times = moments(series)
    if not times:
        return
    base = np.zeros(len(times))
    for one, style in zip(series, styles, strict=True):
        values = one.at(times)
        values = np.where(np.isfinite(values), values, 0.0)
        axes.fill_between(np.array(times), base, base + values, color=style.color, alpha=0.55, lw=0)
        edge = np.where(values > 0, base + values, np.nan)
        axes.plot(np.array(times), edge, color=style.color, linewidth=1)
        base += values
    axes.set_ylim(0, max(float(base.max()) * 1.08, 1e-9))


def _exemplars(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Mark single measurements, so many that they can be told apart."""
    low, top = axes.get_ylim()
    seen = [point for point in points if low <= point[1] <= top]
    if seen:
        shown = seen[:: max(1, len(seen) // 60)]
        axes.scatter(
            np.array([time for time, _ in shown]),
            [value for _, value in shown],
            marker="D",
            s=9,
            color=LINK,
            alpha=0.75,
            linewidths=0,
            zorder=3,
        )


def _thresholds(axes: Axes, thresholds: Mapping[str, Any]) -> None:
    """Draw the thresholds that the lines come near to."""
    low, top = axes.get_ylim()
    for step in thresholds["steps"]:
        if step["value"] is not None and low <= step["value"] <= top * 1.6:
            axes.axhline(
                step["value"], color=named(step["color"]), linewidth=1, linestyle=(0, (6, 4))
            )
            axes.set_ylim(low, max(top, step["value"] * 1.05))
