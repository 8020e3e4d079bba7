"""Drawing the pictures of the pages: boxes, queues, stores and arrows as SVG.

A picture takes the colour of the text that it stands in, so it can be read on light and dark pages;
shown by itself it follows the reader's system. Text that does not fit its box is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from xml.sax.saxutils import escape

Point = tuple[float, float]

#: Width of a character in pixels, on the safe side of the fonts that readers have.
_WIDTHS = {"t": 6.7, "m": 7.3, "s": 5.7, "h": 7.1}
_LINE = 16
_STYLE = """\
svg:root{color:#1f2328}
@media (prefers-color-scheme:dark){svg:root{color:#e6edf3}}
.lv-t{font:13px system-ui,sans-serif}
.lv-h{font:600 13px system-ui,sans-serif}
.lv-m{font:12px ui-monospace,SFMono-Regular,Menlo,monospace}
.lv-s{font:11px system-ui,sans-serif}
.lv-t,.lv-h,.lv-m,.lv-s{fill:currentColor;stroke:none}
.lv-line{fill:none;stroke:currentColor;stroke-width:1.3;stroke-opacity:.8}
.lv-dash{stroke-dasharray:4 4}
.lv-lane{fill:none;stroke:currentColor;stroke-opacity:.22}
.lv-head{fill:currentColor;fill-opacity:.8}
.lv-frame{fill:currentColor;fill-opacity:.04;stroke:currentColor;stroke-opacity:.35}
.lv-ours{fill:#2f9e44;fill-opacity:.16;stroke:#2f9e44}
.lv-broker{fill:#e8590c;fill-opacity:.15;stroke:#e8590c}
.lv-store{fill:#228be6;fill-opacity:.16;stroke:#228be6}
.lv-rim{fill:none}
.lv-other{fill:currentColor;fill-opacity:.07;stroke:currentColor;stroke-opacity:.6}
.lv-bad{fill:#e03131;fill-opacity:.16;stroke:#e03131}
"""


@dataclass(frozen=True)
class Shape:
    """Where something was drawn, for arrows to begin and end at."""

    x: float
    y: float
    width: float
    height: float

    def left(self, share: float = 0.5) -> Point:
        """Return a point of the left side, ``share`` of the way down."""
        return self.x, self.y + self.height * share

    def right(self, share: float = 0.5) -> Point:
        """Return a point of the right side."""
        return self.x + self.width, self.y + self.height * share

    def top(self, share: float = 0.5) -> Point:
        """Return a point of the upper side, ``share`` of the way to the right."""
        return self.x + self.width * share, self.y

    def bottom(self, share: float = 0.5) -> Point:
        """Return a point of the lower side."""
        return self.x + self.width * share, self.y + self.height


class Drawing:
    """One picture; ``about`` is for those who cannot see it, and ``name`` unique within a page.

    ``kind`` is whose something is: `ours`, `broker`, `store`, `other` or `bad`.
    """

    def __init__(self, name: str, width: int, height: int, about: str) -> None:
        self._name, self._width, self._height, self._about = name, width, height, about
        self._parts: list[str] = []

    def frame(self, x: float, y: float, width: float, height: float, title: str) -> Shape:
        """Draw a frame around others; call it before them."""
        self._rectangle(x, y, width, height, "frame", radius=8)
        self.text(x + 10, y + 18, title, font="h", anchor="start")
        return Shape(x, y, width, height)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *lines: str,
        kind: str = "ours",
        font: str = "t",
    ) -> Shape:
        """Draw a box with centred lines of text; the first is heavier when there are several."""
        self._rectangle(x, y, width, height, kind, radius=5)
        return self._filled(Shape(x, y, width, height), lines, font)

    def queue(self, x: float, y: float, width: float, height: float, *lines: str) -> Shape:
        """Draw a queue of the broker: a box with messages at its end."""
        self._rectangle(x, y, width, height, "broker", radius=2)
        for bar in (6, 11, 16):
            self._line([(x + width - bar, y), (x + width - bar, y + height)], "lv-broker")
        return self._filled(Shape(x, y, width, height), lines, "m", room=width - 18)

    def exchange(self, x: float, y: float, width: float, height: float, *lines: str) -> Shape:
        """Draw an exchange of the broker: a hexagon."""
        cut = min(12, height / 2)
        points = [
            *((x + cut, y), (x + width - cut, y), (x + width, y + height / 2)),
            *((x + width - cut, y + height), (x + cut, y + height), (x, y + height / 2)),
        ]
        path = " ".join(f"{_n(a)},{_n(b)}" for a, b in points)
        self._parts.append(f'<polygon class="lv-broker" points="{path}"/>')
        return self._filled(Shape(x, y, width, height), lines, "m")

    def store(self, x: float, y: float, width: float, height: float, *lines: str) -> Shape:
        """Draw a table, or a database: a drum."""
        rise = 7
        bow = f"a{_n(width / 2)},{rise} 0 0"
        start = f"M{_n(x)},{_n(y + rise)}"
        self._parts += [
            (
                f'<path class="lv-store" d="{start}{bow} 1 {_n(width)},0v{_n(height - 2 * rise)}'
                f'{bow} 1 {_n(-width)},0z"/>'
            ),
            f'<path class="lv-store lv-rim" d="{start}{bow} 0 {_n(width)},0"/>',
        ]
        return self._filled(Shape(x, y + rise / 2, width, height), lines, "t")

    def arrow(
        self,
        *points: Point,
        label: str = "",
        at: Point | None = None,
        dashed: bool = False,
        anchor: str = "middle",
    ) -> Self:
        """Draw an arrow through the points, with a label above its middle or ``at`` a point."""
        dash = " lv-dash" if dashed else ""
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._parts.append(
            f'<polyline class="lv-line{dash}" points="{path}" marker-end="url(#lv-{self._name})"/>'
        )
        if label:
            (ax, ay), (bx, by) = points[len(points) // 2 - 1 : len(points) // 2 + 1]
            x, y = at or ((ax + bx) / 2, (ay + by) / 2 - 6)
            self.text(x, y, label, font="s", anchor=anchor)
        return self

    def line(self, *points: Point) -> Self:
        """Draw a line without a head."""
        self._line(list(points), "lv-line")
        return self

    def lane(self, start: Point, end: Point) -> Self:
        """Draw a faint line for things to happen on."""
        self._line([start, end], "lv-lane")
        return self

    def text(
        self, x: float, y: float, words: str, *, font: str = "t", anchor: str = "middle"
    ) -> Self:
        """Write a line; ``font`` is t(ext), h(eavy), m(onospaced) or s(mall)."""
        self._parts.append(
            f'<text class="lv-{font}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )
        return self

    def svg(self) -> str:
        """Return the picture as a file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self._width} {self._height}" '
            f'width="{self._width}" role="img" aria-label="{escape(self._about)}">\n'
            f"<style>\n{_STYLE}</style>\n"
            f'<defs><marker id="lv-{self._name}" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
            '<path class="lv-head" d="M0,0L8,4L0,8z"/></marker></defs>\n'
        )
        return head + "".join(f"{part}\n" for part in self._parts) + "</svg>\n"

    def _filled(
        self, shape: Shape, lines: tuple[str, ...], font: str, room: float | None = None
    ) -> Shape:
        first = shape.y + shape.height / 2 - (len(lines) - 1) * _LINE / 2 + 4.5
        for number, words in enumerate(lines):
            used = font if number == 0 else "s"
            if len(words) * _WIDTHS[used] > (room or shape.width) - 4:
                raise ValueError(f"{words!r} does not fit into {room or shape.width} pixels")
            middle = shape.x + (room or shape.width) / 2
            self.text(middle, first + number * _LINE, words, font=used)
        return shape

    def _rectangle(
        self, x: float, y: float, width: float, height: float, kind: str, *, radius: int
    ) -> None:
        self._parts.append(
            f'<rect class="lv-{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" '
            f'height="{_n(height)}" rx="{radius}"/>'
        )

    def _line(self, points: list[Point], style: str) -> None:
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self._parts.append(f'<polyline class="{style}" points="{path}"/>')


def _n(number: float) -> str:
    return f"{number:g}"
