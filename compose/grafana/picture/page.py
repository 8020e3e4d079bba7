"""The page that a dashboard is drawn on, measured in pixels from the top left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from compose.grafana.picture.colors import BORDER, DIM, PAGE, PANEL, TEXT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DPI", "Box", "Page"]

#: Pixels of an inch; a point, in which sizes of text are given, is the 72nd part of one.
DPI = 100
#: Pixels: of a grid's column and row, between panels, and at the top.
_COLUMN, _ROW, _GAP, _HEAD = 60, 38, 8, 58


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, from the top left."""

    x: float
    y: float
    w: float
    h: float

    @classmethod
    def of(cls, place: Mapping[str, int]) -> Box:
        """Return the box of a panel, from its place in the grid."""
        return cls(
            _GAP + place["x"] * _COLUMN,
            _HEAD + place["y"] * _ROW,
            place["w"] * _COLUMN - _GAP,
            place["h"] * _ROW - _GAP,
        )

    def inside(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return the box without so many pixels at each side."""
        return Box(self.x + left, self.y + top, self.w - left - right, self.h - top - bottom)


class Page:
    """A figure that has room for panels at places of the grid."""

    def __init__(self, places: Sequence[Mapping[str, int]]) -> None:
        self.width = 24 * _COLUMN + _GAP
        self.height = _HEAD + max(place["y"] + place["h"] for place in places) * _ROW + _GAP
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor=PAGE)
        self._canvas = FigureCanvasAgg(self.figure)

    def axes(self, box: Box, *, bare: bool = False) -> Axes:
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
        color: str = TEXT,
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

    def no_data(self, box: Box) -> None:
        """Say in the middle of a panel that there is nothing to show."""
        self.text(box.x + box.w / 2, box.y + box.h / 2, "No data", color=DIM, align="center")

    def stroke(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Draw a level stroke; ``y`` is its lower edge."""
        self.figure.add_artist(
            Rectangle(
                (x / self.width, 1 - y / self.height),
                width / self.width,
                height / self.height,
                transform=self.figure.transFigure,
                facecolor=color,
                linewidth=0,
            )
        )

    def frame(self, box: Box, title: str) -> None:
        """Draw the frame of a panel, and its title."""
        self.figure.add_artist(
            FancyBboxPatch(
                (box.x / self.width, 1 - (box.y + box.h) / self.height),
                box.w / self.width,
                box.h / self.height,
                boxstyle="square,pad=0",
                transform=self.figure.transFigure,
                facecolor=PANEL,
                edgecolor=BORDER,
                linewidth=0.8,
                zorder=-1,
            )
        )
        self.text(box.x + 10, box.y + 15, title, size=8.5, bold=True)

    def pixels(self) -> np.ndarray[Any, Any]:
        """Return the finished page: rows of pixels of red, green, blue and opacity."""
        self._canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(self._canvas.buffer_rgba())  # type: ignore[no-untyped-call]
