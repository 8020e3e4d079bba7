"""What all dashboards share: how they are found, linked, filtered, and laid out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from compose.grafana.panel import SOURCE, Panel
from leveret import metrics

__all__ = ["ACTOR", "QUEUE", "Row", "Variable", "board"]

TAG = "leveret"
#: Where the alerts' runbooks are read; what stands in the field at the top of the page.
RUNBOOKS = "${docs}/runbooks/index.html"


@dataclass(frozen=True)
class Variable:
    """What one chooses at the top of a page: values of a label, found by a query."""

    name: str
    title: str
    query: str
    #: Several at once, or all; otherwise exactly one.
    several: bool = True

    def built(self) -> dashboard.QueryVariable:
        """Return it as Grafana takes it."""
        made = (
            dashboard.QueryVariable(self.name)
            .label(self.title)
            .datasource(SOURCE)
            .query({"query": self.query, "refId": self.name, "qryType": 1})
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(multi=self.several)
            .include_all(include_all=self.several)
        )
        if self.several:
            made = made.all_value(".*").current(
                model.VariableOption(selected=True, text=["All"], value=["$__all"])
            )
        return made


def _label_values(metric: Any, label: str) -> str:
    (family,) = metric.describe()
    if label not in metric._labelnames:  # noqa: SLF001 - nothing public tells them
        raise LookupError(f"{family.name} has no label {label}")
    return f"label_values({family.name}_total, {label})"


QUEUE = Variable("queue", "Queue", _label_values(metrics.JOBS, "queue"))
ACTOR = Variable("actor", "Actor", _label_values(metrics.JOBS, "actor"), several=False)


@dataclass(frozen=True)
class Row:
    """Panels side by side, under a title, or without one at the top."""

    title: str
    panels: Sequence[Panel] = field(default_factory=tuple)


class _Deploys(Builder[model.AnnotationQuery]):
    """A mark where a process begins to run another version."""

    def build(self) -> model.AnnotationQuery:
        (family,) = metrics.BUILD_INFO.describe()
        running, before = (
            f"count by (process, version) ({series})"
            for series in (family.name, f"{family.name} offset 5m")
        )
        return _TitledAnnotation(
            name="Deploys",
            datasource=SOURCE,
            enable=True,
            icon_color="blue",
            # Not what comes into sight when Prometheus itself starts.
            expr=f"({running} unless {before}) and on () count(up offset 5m)",
        )


class _TitledAnnotation(model.AnnotationQuery):
    """An annotation with what the data source for Prometheus has besides."""

    def to_json(self) -> dict[str, object]:
        return {
            **super().to_json(),
            "titleFormat": "{{process}} runs {{version}}",
            "textFormat": "",
            "step": "60s",
        }


def board(
    name: str, title: str, about: str, rows: Iterable[Row], *, variables: Sequence[Variable] = ()
) -> model.Dashboard:
    """Return a dashboard: its panels from left to right, row by row."""
    made = (
        dashboard.Dashboard(f"Leveret · {title}")
        .uid(f"leveret-{name}")
        .description(about)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .annotation(_Deploys())
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(as_dropdown=False)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .link(
            dashboard.DashboardLink("Runbooks")
            .type(model.DashboardLinkType.LINK)
            .icon("doc")
            .tooltip("What each alert means, where to look, and how to mend it")
            .url(RUNBOOKS)
            .target_blank(target_blank=True)
        )
    )
    for variable in variables:
        made = made.with_variable(variable.built())
    made = made.with_variable(
        dashboard.TextBoxVariable("docs")
        .label("Docs at")
        .description("Where your copy of Leveret's documentation is served; links lead there.")
        .default_value("http://127.0.0.1:8001")
    )
    for position, row in enumerate(rows):
        if row.title:
            made = made.with_row(dashboard.Row(row.title).id(1000 + position))
        for panel in row.panels:
            made = made.with_panel(panel)
    return made.build()
