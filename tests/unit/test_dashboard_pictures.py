"""Pictures of dashboards: every kind of panel is drawn, with units as Grafana writes them."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field

import pytest
from PIL import Image

from compose.grafana import DASHBOARDS, FOLDER
from compose.grafana.answer import Window, panels
from compose.grafana.picture import draw
from compose.grafana.unit import written
from tests.support.pages import ROOT

#: Has all kinds of panels.
ACTOR = json.loads((FOLDER / "actor.json").read_text())
PICTURES = ROOT / "docs" / "images"
PAGE = ROOT / "docs" / "how-to" / "use-the-dashboards.md"


@dataclass(frozen=True)
class Found:
    """A series."""

    labels: dict[str, str] = field(default_factory=dict)
    points: tuple[tuple[float, float], ...] = ()


class Answers:
    """Answers each query with three series, or with none."""

    def __init__(self, *values: float) -> None:
        self.values = values
        self.asked: list[str] = []

    def query(self, expression, *, at):
        """Return one value of each."""
        self.asked.append(expression)
        return [Found(self._labels(n), ((at, value),)) for n, value in enumerate(self.values)]

    def query_range(self, expression, *, start, end, step):
        """Return values that change, one of them with a gap."""
        self.asked.append(expression)
        times = [start + step * n for n in range(int((end - start) / step)) if not 8 < n < 12]
        return [
            Found(self._labels(n), tuple((time, value * (1 + time % 7)) for time in times))
            for n, value in enumerate(self.values)
        ]

    def exemplars(self, expression, *, start, end):
        """Return a point."""
        return [((start + end) / 2, value) for value in self.values]

    def _labels(self, n):
        return {"le": ("0.1", "1.0", "+Inf")[n % 3], "outcome": f"o{n}", "actor": f"a{n}"}


@pytest.mark.parametrize("values", [(0.2, 3.0, 40.0), (math.nan, math.inf, 0.0), ()])
def test_every_kind_of_panel_is_drawn(values):
    """Also of what is infinite, no number, or not there at all."""
    assert {panel["type"] for panel in panels(ACTOR)} == {
        *("stat", "timeseries", "heatmap", "bargauge", "table"),
    }
    source = Answers(*values)
    window = Window(start=1_000_000, end=1_000_600, points=40, scraped_every=5)
    picture = Image.open(io.BytesIO(draw(ACTOR, source, {"actor": "email.send"}, window)))
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in ACTOR["panels"])
    assert picture.width == 24 * 60 + 8
    assert picture.height > bottom * 38
    assert len(source.asked) == sum(len(panel["targets"]) for panel in panels(ACTOR))
    assert not [expression for expression in source.asked if "$actor" in expression]


def test_the_page_has_a_picture_of_each_dashboard():
    """Small enough for a page, and one for each."""
    text = PAGE.read_text()
    for name in DASHBOARDS:
        file = PICTURES / f"dashboard-{name}.png"
        assert f"](../images/{file.name})" in text
        assert 10_000 < file.stat().st_size <= 200 * 1024


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0, "s", None, "0 s"),
        (0.000_25, "s", None, "250 µs"),
        (0.1234, "s", None, "123 ms"),
        (90, "s", None, "1.5 min"),
        (7200, "s", None, "2 hours"),
        (86400, "s", None, "1 day"),
        (0.1234, "percentunit", None, "12.3%"),
        (0.999, "percentunit", 0, "100%"),
        (1234, "short", None, "1.23 K"),
        (12, "short", 0, "12"),
        (3 * 1024**3, "bytes", None, "3 GiB"),
        (0, "bytes", None, "0 B"),
        (2.5, "suffix:jobs/s", None, "2.5 jobs/s"),
        (math.inf, "s", None, "∞"),
        (math.nan, "short", None, "none"),
    ],
)
def test_numbers_are_written_with_their_unit(value, unit, decimals, text):
    """As few digits as tell something."""
    assert written(value, unit, decimals) == text
