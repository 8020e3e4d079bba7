"""What the queries of a dashboard find: series, asked of a source."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from compose.grafana.answer import Window, asked, panels

__all__ = ["Answer", "Found", "Numbers", "Series", "Source", "answers", "moments"]

Numbers = np.ndarray[Any, Any]


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
class Series:
    """A line: its name, and its points."""

    name: str
    labels: Mapping[str, str]
    times: Numbers
    values: Numbers
    ref: str

    @property
    def last(self) -> float:
        """The newest value that is a number."""
        known = self._known
        return float(known[-1]) if len(known) else math.nan

    @property
    def most(self) -> float:
        """The largest value."""
        known = self._known
        return float(known.max()) if len(known) else math.nan

    def at(self, times: Sequence[float]) -> Numbers:
        """Return the values at some times, 0 where there is none."""
        known = dict(zip(self.times, self.values, strict=True))
        return np.array([known.get(time, 0.0) for time in times])

    @property
    def _known(self) -> Numbers:
        return self.values[~np.isnan(self.values)]


@dataclass(frozen=True)
class Answer:
    """What the queries of a panel have found."""

    series: Sequence[Series]
    exemplars: Sequence[tuple[float, float]]


def answers(
    document: Mapping[str, Any], source: Source, chosen: Mapping[str, str], window: Window
) -> dict[int, Answer]:
    """Ask all that a dashboard asks; return what each panel, by its id, has found."""
    found: dict[int, list[Series]] = {}
    points: dict[int, list[tuple[float, float]]] = {}
    for query in asked(document, chosen, window):
        if query.instant:
            samples = source.query(query.expression, at=window.end)
        else:
            # As Grafana: on whole steps, so that the same time gives the same picture.
            start, end = (time // window.step * window.step for time in (window.start, window.end))
            samples = source.query_range(query.expression, start=start, end=end, step=window.step)
        found.setdefault(query.panel, []).extend(
            Series(
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
        panel["id"]: Answer(found.get(panel["id"], []), points.get(panel["id"], []))
        for panel in panels(document)
    }


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


def moments(series: Sequence[Series]) -> list[float]:
    """Return all times of some series, in order."""
    return sorted({time for one in series for time in one.times})
