"""What Grafana does to a query before it asks Prometheus: variables, intervals, steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Asked", "Window", "asked", "panels", "substituted"]

#: Grafana's own, when the data source is scraped as often as compose.yaml's.
_SCRAPE_SECONDS = 15.0


@dataclass(frozen=True)
class Window:
    """The time that a dashboard shows (Unix times), at how many points, of what is scraped how."""

    start: float
    end: float
    points: int = 300
    scraped_every: float = _SCRAPE_SECONDS

    @property
    def step(self) -> float:
        """Seconds from one point of a graph to the next."""
        return max((self.end - self.start) / self.points, self.scraped_every)

    def variables(self) -> dict[str, str]:
        """Return Grafana's own variables."""
        rate = max(self.step + self.scraped_every, 4 * self.scraped_every)
        return {
            "__rate_interval": f"{rate * 1000:.0f}ms",
            "__interval": f"{self.step * 1000:.0f}ms",
            "__range": f"{round(self.end - self.start)}s",
        }


@dataclass(frozen=True)
class Asked:
    """One query of a panel, ready for Prometheus."""

    panel: int
    title: str
    ref: str
    expression: str
    legend: str
    #: Whether only the newest value is asked for.
    instant: bool
    #: Whether points of single jobs are asked for besides.
    exemplars: bool


def panels(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the panels of a dashboard that ask something, those of folded rows too."""
    found = [inner for panel in document["panels"] for inner in (panel, *panel.get("panels", []))]
    return [panel for panel in found if panel["type"] != "row"]


def asked(
    document: Mapping[str, Any], variables: Mapping[str, str], window: Window
) -> Iterator[Asked]:
    """Yield every query of a dashboard; ``variables`` are what is chosen, as regexps."""
    values = {**variables, **window.variables()}
    for panel in panels(document):
        for target in panel["targets"]:
            yield Asked(
                panel=panel["id"],
                title=panel["title"],
                ref=target["refId"],
                expression=substituted(target["expr"], values),
                legend=target.get("legendFormat", ""),
                instant=bool(target.get("instant")),
                exemplars=bool(target.get("exemplar")),
            )


def substituted(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$name`` and ``${name}``; raises `LookupError` for a variable without a value."""

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["plain"]
        if name not in values:
            raise LookupError(f"${name} has no value in {text}")
        return values[name]

    # `$1` is label_replace's own.
    return re.sub(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>[a-z_]\w*))", value, text)
