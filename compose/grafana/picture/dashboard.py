"""A dashboard, drawn: its head, its rows, and its panels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl

from compose.grafana.answer import Window, panels, substituted
from compose.grafana.picture.bars import bars
from compose.grafana.picture.colors import DIM, TEXT
from compose.grafana.picture.heatmap import heatmap
from compose.grafana.picture.lines import lines
from compose.grafana.picture.page import Box, Page
from compose.grafana.picture.png import png
from compose.grafana.picture.series import Answer, Source, answers
from compose.grafana.picture.stat import stat
from compose.grafana.picture.table import table

__all__ = ["draw"]

_Kind = Callable[[Page, Box, Mapping[str, Any], Answer, Window], None]
#: By what Grafana calls the type of a panel.
_KINDS: Mapping[str, _Kind] = {
    "stat": stat,
    "timeseries": lines,
    "bargauge": bars,
    "table": table,
    "heatmap": heatmap,
}


def draw(
    document: Mapping[str, Any], source: Source, chosen: Mapping[str, str], window: Window
) -> bytes:
    """Return a dashboard as PNG; ``chosen`` are the values of its variables."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "text.color": TEXT}):
        page = Page([panel["gridPos"] for panel in document["panels"]])
        _head(page, document, chosen, window)
        found = answers(document, source, chosen, window)
        for panel in document["panels"]:
            if panel["type"] == "row":
                title = substituted(panel["title"], chosen)
                page.text(14, Box.of(panel["gridPos"]).y + 22, f"⌄  {title}", size=11, bold=True)
        for panel in panels(document):
            box = Box.of(panel["gridPos"])
            page.frame(box, substituted(panel["title"], chosen))
            _KINDS[panel["type"]](page, box, panel, found[panel["id"]], window)
        return png(page.pixels())


def _head(
    page: Page, document: Mapping[str, Any], chosen: Mapping[str, str], window: Window
) -> None:
    page.text(12, 20, document["title"], size=14, bold=True)
    shown = []
    for variable in document["templating"]["list"]:
        if variable["name"] in chosen:
            value = chosen[variable["name"]]
            shown.append(f"{variable['label']}: {'All' if value == '.*' else value}")
    minutes = round((window.end - window.start) / 60)
    page.text(12, 42, "      ".join(shown), size=9, color=DIM)
    page.text(page.width - 12, 20, f"Last {minutes} minutes", size=9, color=DIM, align="right")
