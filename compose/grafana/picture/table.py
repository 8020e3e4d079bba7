"""A table: a row for each set of labels, a column for each label and query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compose.grafana.answer import Window
from compose.grafana.picture.colors import BORDER, LINK, TEXT, lit, named
from compose.grafana.picture.page import Box, Page
from compose.grafana.picture.series import Answer
from compose.grafana.unit import written

__all__ = ["table"]


@dataclass(frozen=True)
class _Row:
    """What series with the same labels have to say: their labels, and a value of each query."""

    labels: Mapping[str, str]
    values: dict[str, float]


@dataclass(frozen=True)
class _Column:
    """A field of the rows: a label, or the value of a query; from where on and how it is shown."""

    field: str
    title: str
    x: float
    override: Mapping[str, Any]

    @property
    def is_label(self) -> bool:
        """Whether it shows a label."""
        return not self.field.startswith("Value")

    def order(self, row: _Row) -> Any:
        """Return what rows are sorted by."""
        return row.labels[self.field] if self.is_label else row.values.get(self.field, -math.inf)

    def cell(self, row: _Row) -> tuple[str, str]:
        """Return the text in a row, and its colour."""
        return self._label(row) if self.is_label else self._value(row)

    def _label(self, row: _Row) -> tuple[str, str]:
        text, color = row.labels[self.field], TEXT
        for mapping in self.override.get("mappings", []):
            color = named(mapping["options"].get(text, {"color": TEXT})["color"])
        return text, LINK if "links" in self.override else color

    def _value(self, row: _Row) -> tuple[str, str]:
        value = row.values.get(self.field, math.nan)
        if math.isnan(value):
            return "", TEXT
        thresholds = self.override.get("thresholds")
        color = TEXT if thresholds is None else lit(thresholds, value)
        return written(value, self.override.get("unit", "short")), color


def table(page: Page, box: Box, panel: Mapping[str, Any], answer: Answer, window: Window) -> None:
    """Draw as many rows as there is room for, in the order that the panel asks for."""
    del window
    area = box.inside(12, 32, 12, 8)
    columns = _columns(panel, area)
    rows = _rows(answer, [column.field for column in columns if column.is_label])
    (sorting,) = panel["options"]["sortBy"]
    by = next(column for column in columns if column.title == sorting["displayName"])
    rows.sort(key=by.order, reverse=bool(sorting.get("desc")))
    y = area.y + 8
    for column in columns:
        page.text(column.x, y, column.title, size=7.5, bold=True, color=LINK)
    for row in rows[: int((area.h - 14) / 20)]:
        y += 20
        page.stroke(area.x, y - 10, area.w, 0.6, BORDER)
        for column in columns:
            text, color = column.cell(row)
            page.text(column.x, y, text, size=8, color=color)
    if not rows:
        page.no_data(box)


def _columns(panel: Mapping[str, Any], area: Box) -> list[_Column]:
    """Place the columns; those without a width of their own share what the others leave."""
    organize = next(t for t in panel["transformations"] if t["id"] == "organize")["options"]
    fields = sorted(organize["indexByName"], key=lambda name: organize["indexByName"][name])
    titles = organize["renameByName"]
    overrides = {
        override["matcher"]["options"]: {p["id"]: p["value"] for p in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    given = {name: overrides.get(titles[name], {}).get("custom.width", 0) for name in fields}
    rest = (area.w - sum(given.values())) / max(list(given.values()).count(0), 1)
    x, made = area.x, []
    for name in fields:
        made.append(_Column(name, titles[name], x + 4, overrides.get(titles[name], {})))
        x += given[name] or rest
    return made


def _rows(answer: Answer, labels: Sequence[str]) -> list[_Row]:
    """Bring the series of all queries together by their labels."""
    merged: dict[tuple[str, ...], _Row] = {}
    for one in answer.series:
        key = tuple(one.labels.get(name, "") for name in labels)
        row = merged.setdefault(key, _Row(dict(zip(labels, key, strict=True)), {}))
        row.values[f"Value #{one.ref}"] = row.values["Value"] = one.last
    return list(merged.values())
