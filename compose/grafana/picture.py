"""Pictures of dashboards: each panel drawn where its JSON puts it, from what its queries answer.

Grafana itself is not needed, and does not draw them: this renderer knows the kinds of panels, the
units, thresholds, colours, legends and transformations that `compose.grafana.panel` uses, and has
Grafana's dark look.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from compose.grafana.answer import Window, asked, panels, substituted
from compose.grafana.unit import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Found", "Source", "draw"]

_PAGE, _PANEL, _BORDER, _LINE = "#111217", "#181b1f", "#2c2f36", "#2a2d33"
_TEXT, _DIM = "#d5d7dc", "#9297a3"
#: Grafana's names of colours, and the order in which it gives them to series.
_COLORS = {
    "green": "#73BF69",
    "yellow": "#FADE2A",
    "red": "#F2495C",
    "blue": "#5794F2",
    "orange": "#FF9830",
    "purple": "#B877D9",
    "dark-red": "#C4162A",
}
_PALETTE = (
    *("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#705DA0"),
    *("#37872D", "#FADE2A", "#447EBC", "#C15C17", "#890F02"),
)
#: Pixels: of a grid's column and row, between panels, and at the top.
_COLUMN, _ROW, _GAP, _HEAD = 60, 38, 8, 58
_DPI = 100
#: The square of a distance between colours that nobody sees.
_ALIKE = 100
#: Seconds between marks on the axis of time.
_TICKS = (60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)


class Found(Protocol):
    """A series of an answer."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        ...

    @property
    def points(self) -> Sequence[tuple[float, float]]:
        """Its times (Unix) and values."""
        ...


class Source(Protocol):
    """What answers queries: a Prometheus."""

    def query(self, expression: str, *, at: float) -> Sequence[Found]:
        """Return the values at a time."""
        ...

    def query_range(
        self, expression: str, *, start: float, end: float, step: float
    ) -> Sequence[Found]:
        """Return the values at each step of a range."""
        ...

    def exemplars(
        self, expression: str, *, start: float, end: float
    ) -> Sequence[tuple[float, float]]:
        """Return the times and values of single measurements with a trace."""
        ...


@dataclass(frozen=True)
class _Series:
    """A line: its name, and its points."""

    name: str
    labels: Mapping[str, str]
    times: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]
    ref: str = "A"

    @property
    def last(self) -> float:
        """The newest value that is a number."""
        known = self.values[~np.isnan(self.values)]
        return float(known[-1]) if len(known) else math.nan

    @property
    def most(self) -> float:
        """The largest value."""
        known = self.values[~np.isnan(self.values)]
        return float(known.max()) if len(known) else math.nan


@dataclass(frozen=True)
class _Answer:
    """What the queries of a panel have found."""

    series: Sequence[_Series]
    exemplars: Sequence[tuple[float, float]] = field(default_factory=tuple)


def draw(
    document: Mapping[str, Any], source: Source, chosen: Mapping[str, str], window: Window
) -> bytes:
    """Return a dashboard as PNG; ``chosen`` are the values of its variables."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "text.color": _TEXT}):
        places = [panel["gridPos"] for panel in document["panels"]]
        width = 24 * _COLUMN + _GAP
        height = _HEAD + max(place["y"] + place["h"] for place in places) * _ROW + _GAP
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_PAGE)
        canvas = FigureCanvasAgg(figure)
        page = _Page(figure, width, height)
        _head(page, document, chosen, window)
        answers = _answers(document, source, chosen, window)
        for panel in document["panels"]:
            if panel["type"] == "row":
                place = panel["gridPos"]
                title = substituted(panel["title"], chosen)
                page.text(14, _HEAD + place["y"] * _ROW + 22, f"⌄  {title}", size=11, bold=True)
        for panel in panels(document):
            box = _box(panel["gridPos"])
            page.frame(box, substituted(panel["title"], chosen))
            _KINDS[panel["type"]](page, box, panel, answers[panel["id"]], window)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = Image.fromarray(
            np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        ).convert("RGB")
        output = io.BytesIO()
        _small(pixels).save(output, "PNG", optimize=True)
        return output.getvalue()


def _small(pixels: Image.Image) -> Image.Image:
    """Return the picture in 256 colours: the most frequent that differ, so that none is lost."""
    flat = np.asarray(pixels).reshape(-1, 3)
    codes, where, counts = np.unique(
        flat.astype(np.int32) @ (65536, 256, 1), return_inverse=True, return_counts=True
    )
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
    kept = np.empty((0, 3), dtype=np.int64)
    for color in colors[np.argsort(-counts)]:
        if len(kept) < 256 and not (((kept - color) ** 2).sum(axis=1) < _ALIKE).any():
            kept = np.vstack([kept, color])
    nearest = [int(((kept - color) ** 2).sum(axis=1).argmin()) for color in colors]
    small = Image.fromarray(
        np.array(nearest, dtype=np.uint8)[where].reshape(pixels.height, pixels.width), "P"
    )
    small.putpalette(kept.astype(np.uint8).tobytes())
    return small


def _answers(
    document: Mapping[str, Any], source: Source, chosen: Mapping[str, str], window: Window
) -> dict[int, _Answer]:
    found: dict[int, list[_Series]] = {}
    points: dict[int, list[tuple[float, float]]] = {}
    for query in asked(document, chosen, window):
        if query.instant:
            samples = source.query(query.expression, at=window.end)
        else:
            # As Grafana: on whole steps, so that the same time gives the same picture.
            start, end = (time // window.step * window.step for time in (window.start, window.end))
            samples = source.query_range(query.expression, start=start, end=end, step=window.step)
        found.setdefault(query.panel, []).extend(
            _Series(
                name=_name(query.legend, sample.labels),
                labels=sample.labels,
                times=np.array([time for time, _ in sample.points]),
                values=np.array([value for _, value in sample.points]),
                ref=query.ref,
            )
            for sample in samples
        )
        if query.exemplars:
            points.setdefault(query.panel, []).extend(
                source.exemplars(query.expression, start=window.start, end=window.end)
            )
    return {
        panel["id"]: _Answer(found.get(panel["id"], []), points.get(panel["id"], []))
        for panel in panels(document)
    }


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


# ----------------------------------------------------------------------------------------- the page


@dataclass(frozen=True)
class _Box:
    """A rectangle in pixels, from the top left."""

    x: float
    y: float
    w: float
    h: float

    def inside(self, left: float, top: float, right: float, bottom: float) -> _Box:
        """Return the box without so many pixels at each side."""
        return _Box(self.x + left, self.y + top, self.w - left - right, self.h - top - bottom)


def _box(place: Mapping[str, int]) -> _Box:
    return _Box(
        _GAP + place["x"] * _COLUMN,
        _HEAD + place["y"] * _ROW,
        place["w"] * _COLUMN - _GAP,
        place["h"] * _ROW - _GAP,
    )


class _Page:
    """The figure, in pixels from the top left."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure = figure
        self.width = width
        self.height = height

    def axes(self, box: _Box, *, bare: bool = False) -> Axes:
        """Return axes that fill a box."""
        made = self.figure.add_axes(
            (
                box.x / self.width,
                1 - (box.y + box.h) / self.height,
                box.w / self.width,
                box.h / self.height,
            )
        )
        made.set_facecolor("none")
        for spine in made.spines.values():
            spine.set_visible(False)
        if bare:
            made.set_axis_off()
            made.set_xlim(0, box.w)
            made.set_ylim(box.h, 0)
        return made

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 8,
        bold: bool = False,
        color: str = _TEXT,
        align: str = "left",
    ) -> None:
        """Write a line; ``y`` is its middle."""
        self.figure.text(
            x / self.width,
            1 - y / self.height,
            text.replace("$", r"\$"),
            fontsize=size,
            fontweight="bold" if bold else "normal",
            color=color,
            ha=align,
            va="center",
        )

    def frame(self, box: _Box, title: str) -> None:
        """Draw the frame of a panel, and its title."""
        self.figure.add_artist(
            FancyBboxPatch(
                (box.x / self.width, 1 - (box.y + box.h) / self.height),
                box.w / self.width,
                box.h / self.height,
                boxstyle="square,pad=0",
                transform=self.figure.transFigure,
                facecolor=_PANEL,
                edgecolor=_BORDER,
                linewidth=0.8,
                zorder=-1,
            )
        )
        self.text(box.x + 10, box.y + 15, title, size=8.5, bold=True)


def _head(
    page: _Page, document: Mapping[str, Any], chosen: Mapping[str, str], window: Window
) -> None:
    page.text(12, 20, document["title"], size=14, bold=True)
    shown = []
    for variable in document["templating"]["list"]:
        if variable["name"] in chosen:
            value = chosen[variable["name"]]
            shown.append(f"{variable['label']}: {'All' if value == '.*' else value}")
    minutes = round((window.end - window.start) / 60)
    page.text(12, 42, "      ".join(shown), size=9, color=_DIM)
    page.text(page.width - 12, 20, f"Last {minutes} minutes", size=9, color=_DIM, align="right")


def _color(name: str) -> str:
    return _COLORS.get(name, name)


def _defaults(panel: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = panel["fieldConfig"]["defaults"]
    return found


def _lit(steps: Sequence[Mapping[str, Any]], value: float) -> str:
    """Return the colour of a value by thresholds."""
    color = steps[0]["color"]
    for step in steps:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return _color(color)


def _steps(defaults: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    steps: Sequence[Mapping[str, Any]] = defaults["thresholds"]["steps"]
    return steps


# ------------------------------------------------------------------------------------- the kinds


def _stat(
    page: _Page, box: _Box, panel: Mapping[str, Any], answer: _Answer, window: Window
) -> None:
    defaults = _defaults(panel)
    series = answer.series[0] if answer.series else None
    value = math.nan if series is None else series.last
    text = written(value, defaults["unit"], defaults.get("decimals"))
    for mapping in defaults.get("mappings", []):
        text = mapping["options"].get(f"{value:g}", {"text": text})["text"]
    color = _DIM if math.isnan(value) else _lit(_steps(defaults), value)
    if series is not None and len(series.times) > 1:
        axes = page.axes(box.inside(1, box.h * 0.66, 1, 1))
        axes.set_xticks([])
        axes.set_yticks([])
        values = np.where(np.isfinite(series.values), series.values, np.nan)
        top, low = np.nanmax(values, initial=0), np.nanmin(values, initial=0)
        axes.set_ylim(low, top * 1.1 if top > low else low + 1)
        axes.set_xlim(window.start, window.end)
        axes.fill_between(series.times, values, low, color=color, alpha=0.18, linewidth=0)
        axes.plot(series.times, values, color=color, linewidth=1)
    number, _, unit = text.partition(" ")
    size = min(25, (box.w - 22) / (0.72 * len(number) + 0.4 * len(unit)) * 72 / _DPI)
    y = box.y + box.h * 0.46
    if not unit:
        page.text(box.x + box.w / 2, y, number, size=size, bold=True, color=color, align="center")
        return
    wide = len(number) * size * 0.72 * _DPI / 72
    narrow = len(unit) * size * 0.58 * 0.66 * _DPI / 72
    x = box.x + (box.w - wide - narrow - 6) / 2
    page.text(x + wide, y, number, size=size, bold=True, color=color, align="right")
    page.text(x + wide + 6, y + size * 0.22, unit, size=size * 0.58, bold=True, color=color)


def _lines(
    page: _Page, box: _Box, panel: Mapping[str, Any], answer: _Answer, window: Window
) -> None:
    defaults = _defaults(panel)
    custom = defaults.get("custom", {})
    unit = defaults["unit"]
    series = list(answer.series)
    styles = [_style(panel, position, one.name) for position, one in enumerate(series)]
    wide = _legend(page, box, series, styles, unit)
    axes = page.axes(box.inside(62, 32, wide + 16, 26))
    axes.set_xlim(window.start, window.end)
    scale = custom.get("scaleDistribution", {})
    logarithmic = scale.get("type") in ("log", "symlog")
    if custom.get("stacking", {}).get("mode") == "normal":
        _stack(axes, series, styles)
    else:
        for one, style in zip(series, styles, strict=True):
            values = np.where(np.isfinite(one.values), one.values, np.nan)
            if scale.get("type") == "log":
                values = np.where(values > 0, values, np.nan)
            times, values = _with_gaps(one.times, values, window.step)
            axes.plot(
                times,
                values,
                color=style.color,
                linewidth=1.4,
                linestyle=(0, (5, 4)) if style.dashed else "solid",
                solid_capstyle="round",
            )
            if not style.dashed and not logarithmic:
                axes.fill_between(times, values, 0, color=style.color, alpha=0.08, linewidth=0)
    if logarithmic:
        _logarithmic(axes, series, scale, unit)
    else:
        low, top = axes.get_ylim()
        top = max(top, custom.get("axisSoftMax", 0), 1e-9)
        axes.set_ylim(defaults.get("min", low), defaults.get("max", top))
    low, top = axes.get_ylim()
    seen = [point for point in answer.exemplars if low <= point[1] <= top]
    if seen:
        shown = seen[:: max(1, len(seen) // 60)]
        axes.scatter(
            np.array([time for time, _ in shown]),
            [value for _, value in shown],
            marker="D",
            s=9,
            color="#6E9FFF",
            alpha=0.75,
            linewidths=0,
            zorder=3,
        )
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        low, top = axes.get_ylim()
        for step in _steps(defaults):
            if step["value"] is not None and low <= step["value"] <= top * 1.6:
                axes.axhline(
                    step["value"], color=_color(step["color"]), linewidth=1, linestyle=(0, (6, 4))
                )
                axes.set_ylim(low, max(top, step["value"] * 1.05))
    _grid(axes, unit, logarithmic=logarithmic)


def _logarithmic(
    axes: Axes, series: Sequence[_Series], scale: Mapping[str, Any], unit: str
) -> None:
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


@dataclass(frozen=True)
class _Style:
    color: str
    dashed: bool


def _style(panel: Mapping[str, Any], position: int, name: str) -> _Style:
    color, dashed = _PALETTE[position % len(_PALETTE)], False
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        pattern = matcher["options"]
        named = pattern == name if matcher["id"] == "byName" else bool(re.search(pattern, name))
        for prop in override["properties"] if named else ():
            if prop["id"] == "color":
                color = _color(prop["value"]["fixedColor"])
            elif prop["id"] == "custom.lineStyle":
                dashed = True
    return _Style(color, dashed)


def _stack(axes: Axes, series: Sequence[_Series], styles: Sequence[_Style]) -> None:
    moments = sorted({time for one in series for time in one.times})
    if not moments:
        return
    base = np.zeros(len(moments))
    for one, style in zip(series, styles, strict=True):
        known = dict(zip(one.times, one.values, strict=True))
        values = np.array([known.get(time, 0.0) for time in moments])
        values = np.where(np.isfinite(values), values, 0.0)
        axes.fill_between(
            np.array(moments), base, base + values, color=style.color, alpha=0.55, lw=0
        )
        edge = np.where(values > 0, base + values, np.nan)
        axes.plot(np.array(moments), edge, color=style.color, linewidth=1)
        base += values
    axes.set_ylim(0, max(float(base.max()) * 1.08, 1e-9))


def _with_gaps(
    times: np.ndarray[Any, Any], values: np.ndarray[Any, Any], step: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Break a line where points are missing."""
    missing = np.flatnonzero(np.diff(times) > 1.5 * step) + 1
    return (
        np.insert(times, missing, times[missing - 1] + step),
        np.insert(values.astype(float), missing, np.nan),
    )


def _grid(axes: Axes, unit: str, *, logarithmic: bool) -> None:
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=_LINE, linewidth=0.7)
    axes.tick_params(colors=_DIM, labelsize=7.5, length=0, pad=5, which="both")
    start, end = axes.get_xlim()
    room = axes.get_window_extent().width / 62
    every = next((size for size in _TICKS if (end - start) / size <= room), _TICKS[-1])
    axes.set_xticks(np.arange(math.ceil(start / every) * every, end, every))
    axes.xaxis.set_major_formatter(
        lambda time, _position: datetime.fromtimestamp(time, UTC).strftime("%H:%M")
    )
    if not logarithmic:
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(nbins=5, min_n_ticks=3))
    axes.yaxis.set_major_formatter(lambda value, _position: written(value, unit))
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def _legend(
    page: _Page, box: _Box, series: Sequence[_Series], styles: Sequence[_Style], unit: str
) -> float:
    """Write the table of the series at the right; return how wide it is."""
    if not series:
        page.text(box.x + box.w / 2, box.y + box.h / 2, "No data", color=_DIM, align="center")
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
        page.text(place, y, title, size=7, color="#6E9FFF", bold=True, align=align)
    shown = list(zip(series, styles, numbers, strict=True))
    fit = int((box.h - 52) / 16.5)
    for one, style, (newest, largest) in shown[: fit if len(shown) <= fit else fit - 1]:
        y += 16.5
        page.figure.add_artist(
            Rectangle(
                ((x) / page.width, 1 - (y + 1.5) / page.height),
                9 / page.width,
                3 / page.height,
                transform=page.figure.transFigure,
                facecolor=style.color,
                linewidth=0,
            )
        )
        name = one.name if len(one.name) <= room else one.name[: room - 1] + "…"
        page.text(x + 14, y, name, size=7.5)
        page.text(right - most, y, newest, size=7.5, align="right")
        page.text(right, y, largest, size=7.5, align="right")
    if len(shown) > fit:
        page.text(x + 14, y + 16.5, f"and {len(shown) - fit + 1} more", size=7.5, color=_DIM)
    return wide


def _bars(
    page: _Page, box: _Box, panel: Mapping[str, Any], answer: _Answer, window: Window
) -> None:
    del window
    defaults = _defaults(panel)
    series = sorted(answer.series, key=lambda one: one.last, reverse=True)
    if not series:
        page.text(box.x + box.w / 2, box.y + box.h / 2, "No data", color=_DIM, align="center")
        return
    area = box.inside(12, 34, 12, 10)
    axes = page.axes(area, bare=True)
    least = defaults.get("min", 0)
    finite = [one.last for one in series if math.isfinite(one.last)]
    most = defaults.get("max") or max(*finite, 1e-9, 1e-9)
    name_wide = min(area.w * 0.42, max(len(one.name) for one in series) * 6.4 + 14)
    value_wide = 62
    each = min(area.h / len(series), 34)
    full = area.w - name_wide - value_wide
    for position, one in enumerate(series):
        y, tall = position * each + 2, each - 5
        color = _lit(_steps(defaults), one.last)
        share = (one.last - least) / (most - least or 1)
        share = 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0)
        axes.add_patch(Rectangle((name_wide, y), full, tall, facecolor="#22252b", linewidth=0))
        axes.imshow(
            np.linspace(0.35, 1, 64)[None, :],
            extent=(name_wide, name_wide + max(full * share, 1.5), y + tall, y),
            aspect="auto",
            zorder=2,
            cmap=mpl.colors.LinearSegmentedColormap.from_list("bar", [_PANEL, color]),
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


def _table(
    page: _Page, box: _Box, panel: Mapping[str, Any], answer: _Answer, window: Window
) -> None:
    del window
    organize = next(t for t in panel["transformations"] if t["id"] == "organize")["options"]
    fields = sorted(organize["indexByName"], key=lambda name: organize["indexByName"][name])
    titles = organize["renameByName"]
    labels = [name for name in fields if not name.startswith("Value")]
    merged: dict[tuple[str, ...], dict[str, float]] = {}
    for one in answer.series:
        key = tuple(one.labels.get(name, "") for name in labels)
        cells = merged.setdefault(key, {})
        cells[f"Value #{one.ref}"] = cells["Value"] = one.last
    overrides = {
        override["matcher"]["options"]: {p["id"]: p["value"] for p in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    (sorting,) = panel["options"]["sortBy"]
    by = next(name for name in fields if titles[name] == sorting["displayName"])

    def order(item: tuple[tuple[str, ...], dict[str, float]]) -> Any:
        return item[0][labels.index(by)] if by in labels else item[1].get(by, -math.inf)

    rows = sorted(merged.items(), key=order, reverse=bool(sorting.get("desc")))
    area = box.inside(12, 32, 12, 8)
    given = {name: overrides.get(titles[name], {}).get("custom.width", 0) for name in fields}
    free = [name for name in fields if not given[name]]
    rest = (area.w - sum(given.values())) / max(len(free), 1)
    y = area.y + 8
    for name, x in _columns(fields, given, rest, area):
        page.text(x, y, titles[name], size=7.5, bold=True, color="#6E9FFF")
    for key, cells in rows[: int((area.h - 14) / 20)]:
        y += 20
        page.figure.add_artist(
            Rectangle(
                (area.x / page.width, 1 - (y - 10) / page.height),
                area.w / page.width,
                0.6 / page.height,
                transform=page.figure.transFigure,
                facecolor=_BORDER,
                linewidth=0,
            )
        )
        for name, x in _columns(fields, given, rest, area):
            override = overrides.get(titles[name], {})
            color = _TEXT
            if name in labels:
                text = key[labels.index(name)]
                for mapping in override.get("mappings", []):
                    color = _color(mapping["options"].get(text, {"color": _TEXT})["color"])
                if "links" in override:
                    color = "#6E9FFF"
            else:
                value = cells.get(name, math.nan)
                text = "" if math.isnan(value) else written(value, override.get("unit", "short"))
                if "thresholds" in override and text:
                    color = _lit(_table_steps(override["thresholds"]), value)
            page.text(x, y, text, size=8, color=color)
    if not rows:
        page.text(box.x + box.w / 2, box.y + box.h / 2, "No data", color=_DIM, align="center")


def _table_steps(thresholds: Any) -> Sequence[Mapping[str, Any]]:
    steps: Sequence[Mapping[str, Any]] = thresholds["steps"]
    return steps


def _columns(
    fields: Sequence[str], given: Mapping[str, float], rest: float, area: _Box
) -> list[tuple[str, float]]:
    x, made = area.x, []
    for name in fields:
        made.append((name, x + 4))
        x += given[name] or rest
    return made


def _heat(
    page: _Page, box: _Box, panel: Mapping[str, Any], answer: _Answer, window: Window
) -> None:
    del panel
    bounds = sorted(answer.series, key=lambda one: float(one.labels["le"]))
    moments = sorted({time for one in bounds for time in one.times})
    if not moments:
        page.text(box.x + box.w / 2, box.y + box.h / 2, "No data", color=_DIM, align="center")
        return
    upto = np.array(
        [
            np.nan_to_num(
                [dict(zip(one.times, one.values, strict=True)).get(t, 0.0) for t in moments],
                posinf=0.0,
            )
            for one in bounds
        ]
    )
    each = np.diff(upto, axis=0, prepend=0)
    each = np.where((each > 1e-9) & np.isfinite(each), each, np.nan)
    used = np.flatnonzero(~np.all(np.isnan(each), axis=1))
    first, last = (used[0], used[-1]) if len(used) else (0, len(bounds) - 1)
    each, names = each[first : last + 1], [one.labels["le"] for one in bounds[first : last + 1]]
    axes = page.axes(box.inside(62, 32, 92, 26))
    edges = np.append(np.array(moments), moments[-1] + window.step)
    mesh = axes.pcolormesh(
        edges,
        np.arange(len(names) + 1),
        each,
        cmap="turbo",
        norm=mpl.colors.PowerNorm(0.5, vmin=0, vmax=float(np.nanmax(each)) if len(used) else 1),
        linewidth=0.4 if len(moments) < 60 else 0,
        edgecolor=_PANEL,
    )
    axes.set_xlim(window.start, window.end)
    every = max(1, math.ceil(len(names) / 9))
    _grid(axes, "s", logarithmic=True)
    axes.grid(visible=False)
    axes.set_yticks(np.arange(len(names))[::every] + 0.5)
    axes.set_yticklabels(
        ["more" if math.isinf(float(le)) else written(float(le), "s") for le in names[::every]]
    )
    bar = page.axes(_Box(box.x + box.w - 78, box.y + 36, 10, box.h - 66))
    legend = page.figure.colorbar(mesh, cax=bar)
    legend.outline.set_visible(False)
    bar.tick_params(colors=_DIM, labelsize=7, length=0)
    bar.yaxis.set_major_locator(mpl.ticker.MaxNLocator(nbins=4))
    bar.yaxis.set_major_formatter(lambda value, _position: written(value, "suffix:/s"))


_Kind = Callable[[_Page, _Box, Mapping[str, Any], _Answer, Window], None]
_KINDS: Mapping[str, _Kind] = {
    "stat": _stat,
    "timeseries": _lines,
    "bargauge": _bars,
    "table": _table,
    "heatmap": _heat,
}
