"""The kinds of panels, each with one look: a number with a traffic light, lines, bars, a table.

Every panel says in its description what it means and what to do about it. Its id is its place in
links, and stays when others come and go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models import prometheus as prom

from leveret import names

__all__ = [
    "BYTES",
    "COUNT",
    "JOBS_RATE",
    "OUTCOMES",
    "QUANTILES",
    "RATE",
    "SECONDS",
    "SEVERITIES",
    "SHARE",
    "SOURCE",
    "STATES",
    "TO_ACTOR",
    "TO_RUNBOOK",
    "Column",
    "Lights",
    "Panel",
    "Query",
    "above",
    "bars",
    "below",
    "heat_map",
    "lines",
    "neutral",
    "number",
    "queue_colors",
    "rows",
]

Panel = Builder[model.Panel]

#: Units, as Grafana names them.
SECONDS, SHARE, COUNT, BYTES = "s", "percentunit", "short", "bytes"
RATE, JOBS_RATE = "suffix:/s", "suffix:jobs/s"

#: The Prometheus that is chosen at the top of the page.
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, RED, BLUE = "green", "#EAB839", "red", "blue"
#: What a run led to has its colour everywhere.
OUTCOMES = {
    "succeeded": "green",
    "retrying": "#EAB839",
    "dead": "red",
    "snoozed": "blue",
    "cancelled": "purple",
    "expired": "orange",
    "quarantined": "dark-red",
}
#: The link of an actor's name.
TO_ACTOR = "/d/leveret-actor?var-actor=${__value.raw}&${__url_time_range}&${datasource:queryparam}"
#: The link of a runbook's name.
TO_RUNBOOK = "${docs}/runbooks/${__value.raw}.html"
QUANTILES = {"p50": "green", "p95": "#EAB839", "p99": "red"}
#: The queues of LEVERET_QUEUES by default; others get the next colour that is free.
_QUEUES = dict(zip(names.DEFAULT_QUEUES, ("purple", "blue", "orange", "green"), strict=True))
SEVERITIES = {"critical": "red", "warning": "orange"}
STATES = {"firing": "red", "pending": YELLOW}


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are called: ``{{label}}`` is replaced."""

    expression: str
    legend: str = ""
    #: Points of single jobs, with their trace, beside the line.
    exemplars: bool = False


def queue_colors(*suffixes: str) -> Mapping[str, str]:
    """Return the colour of each queue, the same everywhere, for series called after it."""
    return {
        queue + suffix: color for queue, color in _QUEUES.items() for suffix in suffixes or ("",)
    }


@dataclass(frozen=True)
class Lights:
    """From which value on which colour is shown."""

    steps: tuple[tuple[float | None, str], ...]

    def built(self) -> dashboard.ThresholdsConfig:
        """Return it as Grafana takes it."""
        return (
            dashboard.ThresholdsConfig()
            .mode(model.ThresholdsMode.ABSOLUTE)
            .steps([model.Threshold(value=value, color=color) for value, color in self.steps])
        )


def above(yellow: float | None, red: float) -> Lights:
    """Return lights for what should be small."""
    middle = () if yellow is None else ((yellow, YELLOW),)
    return Lights(((None, GREEN), *middle, (red, RED)))


def below(yellow: float, green: float) -> Lights:
    """Return lights for what should be large: red below ``yellow``, green from ``green`` on."""
    return Lights(((None, RED), (yellow, YELLOW), (green, GREEN)))


def neutral() -> Lights:
    """Return one colour, for what is neither good nor bad."""
    return Lights(((None, BLUE),))


_P = TypeVar(
    "_P", stat.Panel, timeseries.Panel, bargauge.Panel, table.Panel, heatmap.Panel
)  # they have no common class with these methods


def _common(  # noqa: PLR0917 - the same of every kind, in the order of the page
    panel: _P, number: int, title: str, means: str, do: str, unit: str, width: int, height: int
) -> _P:
    return (
        panel.id(number)
        .title(title)
        .description(f"{means}\n\n**What to do.** {do}")
        .unit(unit)
        .datasource(SOURCE)
        .span(width)
        .height(height)
    )


def _targets(
    queries: Sequence[Query],
    *,
    instant: bool = False,
    form: prom.PromQueryFormat = prom.PromQueryFormat.TIME_SERIES,
) -> list[Builder[Any]]:
    made: list[Builder[Any]] = []
    for position, query in enumerate(queries):
        target = (
            prometheus.Dataquery()
            .ref_id(chr(ord("A") + position))
            .datasource(SOURCE)
            .expr(query.expression)
            .legend_format(query.legend or "__auto")
            .editor_mode(prom.QueryEditorMode.CODE)
            .format(form)
        )
        target = target.instant() if instant else target.range()
        made.append(target.exemplar(exemplar=True) if query.exemplars else target)
    return made


def number(
    ident: int,
    title: str,
    query: str,
    *,
    means: str,
    do: str,
    unit: str = COUNT,
    lights: Lights | None = None,
    decimals: int | None = None,
    words: Mapping[str, str] | None = None,
    width: int = 3,
    link: str = "",
) -> Panel:
    """Return one number, coloured by ``lights``, over a small graph of how it came about.

    ``words`` replaces values by words; ``link`` is the dashboard that a click leads to.
    """
    panel = (
        _common(stat.Panel(), ident, title, means, do, unit, width, 4)
        .targets(_targets([Query(query, title)]))
        .thresholds((lights or neutral()).built())
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
        .color_mode(shapes.BigValueColorMode.VALUE)
        .graph_mode(shapes.BigValueGraphMode.AREA)
        .text_mode(shapes.BigValueTextMode.VALUE)
        .no_value("none")
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    if words:
        panel = panel.mappings([_words(words)])
    if link:
        panel = panel.data_links([_link(f"Open {link}", f"/d/leveret-{link}")])
    return panel


def _words(words: Mapping[str, str]) -> model.ValueMap:
    return model.ValueMap(
        options={
            value: model.ValueMappingResult(text=text, index=position)
            for position, (value, text) in enumerate(words.items())
        }
    )


def _link(title: str, page: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).url(f"{page}?${{__url_time_range}}&${{__all_variables}}")


def lines(
    ident: int,
    title: str,
    *queries: Query,
    means: str,
    do: str,
    unit: str,
    lights: Lights | None = None,
    stacked: bool = False,
    colors: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    logarithmic: bool = False,
    linear_below: float = 0,
    least: float | None = 0,
    at_least: float | None = None,
    most: float | None = None,
    width: int = 12,
    height: int = 7,
) -> Panel:
    """Return series over time; ``lights`` are dashed lines at what is too much.

    ``colors`` gives series of a name a colour, ``dashed`` draws those of a name as a limit. A
    logarithmic axis has no 0, unless it is linear below some value. ``at_least`` is the smallest
    upper end of the axis.
    """
    panel = (
        _common(timeseries.Panel(), ident, title, means, do, unit, width, height)
        .targets(_targets(queries))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .line_width(1.5)
        .fill_opacity(60 if stacked else 8)
        .show_points(shapes.VisibilityMode.NEVER)
        .span_nulls(span_nulls=False)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.TABLE)
            .placement(shapes.LegendPlacement.RIGHT)
            .show_legend(show_legend=True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(shapes.TooltipDisplayMode.MULTI)
            .sort(shapes.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if logarithmic:
        panel = panel.scale_distribution(
            _symmetric(linear_below)
            if linear_below
            else common.ScaleDistributionConfig().type(shapes.ScaleDistribution.LOG).log(10)
        )
    elif least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    if at_least is not None:
        panel = panel.axis_soft_max(at_least)
    if lights is not None:
        panel = panel.thresholds(lights.built()).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
        )
    for name, color in (colors or {}).items():
        panel = panel.override_by_name(name, [_fixed(color)])
    for name in dashed:
        panel = panel.override_by_regexp(
            name,
            [
                model.DynamicConfigValue(
                    id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 8]}
                ),
                model.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
            ],
        )
    return panel


def _symmetric(linear_below: float) -> common.ScaleDistributionConfig:
    scale = common.ScaleDistributionConfig().type(shapes.ScaleDistribution.SYMLOG)
    return scale.log(10).linear_threshold(linear_below)


def _fixed(color: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def bars(
    ident: int,
    title: str,
    query: Query,
    *,
    means: str,
    do: str,
    unit: str,
    lights: Lights | None = None,
    least: float = 0,
    most: float | None = None,
    width: int = 6,
    height: int = 7,
) -> Panel:
    """Return a bar for each series, as it is now."""
    panel = (
        _common(bargauge.Panel(), ident, title, means, do, unit, width, height)
        .targets(_targets([query], instant=True))
        .thresholds((lights or neutral()).built())
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .orientation(shapes.VizOrientation.HORIZONTAL)
        .display_mode(shapes.BarGaugeDisplayMode.GRADIENT)
        .value_mode(shapes.BarGaugeValueMode.COLOR)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
        .min(least)
    )
    return panel if most is None else panel.max(most)


@dataclass(frozen=True)
class Column:
    """A column of a table: a label of its series, or the value of a query (``Value #A``)."""

    field: str
    title: str
    unit: str = ""
    lights: Lights | None = None
    colors: Mapping[str, str] | None = None
    #: Where a click leads; ``${__value.raw}`` is the value.
    link: str = ""
    width: int = 0


def rows(
    ident: int,
    title: str,
    *queries: Query,
    columns: Sequence[Column],
    means: str,
    do: str,
    sort: str,
    descending: bool = True,
    width: int = 12,
    height: int = 7,
) -> Panel:
    """Return a table with a row for each series, and the values of all queries side by side."""
    panel = (
        _common(table.Panel(), ident, title, means, do, COUNT, width, height)
        .targets(_targets(queries, instant=True, form=prom.PromQueryFormat.TABLE))
        .cell_height(shapes.TableCellHeight.SM)
        .show_header(show_header=True)
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {
                        name: True
                        for name in ("Time", "Value")
                        if name not in {column.field for column in columns}
                    },
                    "indexByName": {
                        column.field: position for position, column in enumerate(columns)
                    },
                    "renameByName": {column.field: column.title for column in columns},
                },
            )
        )
        .sort_by([common.TableSortByFieldState().display_name(sort).desc(desc=descending)])
    )
    for column in columns:
        properties = _properties(column)
        if properties:
            panel = panel.override_by_name(column.title, properties)
    return panel


def _properties(column: Column) -> list[model.DynamicConfigValue]:
    made = []
    if column.unit:
        made.append(model.DynamicConfigValue(id_val="unit", value=column.unit))
    if column.width:
        made.append(model.DynamicConfigValue(id_val="custom.width", value=column.width))
    if column.lights:
        made.append(
            model.DynamicConfigValue(id_val="thresholds", value=column.lights.built().build())
        )
        made.append(
            model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"})
        )
    if column.colors:
        mapping = {
            "type": "value",
            "options": {
                value: {"text": value, "color": color, "index": position}
                for position, (value, color) in enumerate(column.colors.items())
            },
        }
        made.append(model.DynamicConfigValue(id_val="mappings", value=[mapping]))
        made.append(
            model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"})
        )
    if column.link:
        link = {
            "title": f"Open {column.title}",
            "url": column.link,
        }
        made.append(model.DynamicConfigValue(id_val="links", value=[link]))
    return made


def heat_map(
    ident: int,
    title: str,
    query: str,
    *,
    means: str,
    do: str,
    width: int = 12,
    height: int = 7,
) -> Panel:
    """Return how values spread over the buckets of a histogram, in seconds, over time."""
    return (
        _common(heatmap.Panel(), ident, title, means, do, RATE, width, height)
        .targets(_targets([Query(query, "{{le}}")], form=prom.PromQueryFormat.HEATMAP))
        .calculate(calculate=False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .steps(64)
            .exponent(0.5)
        )
        .y_axis(heatmap.YAxisConfig().unit(SECONDS))
        .cell_values(heatmap.CellValues().unit(RATE))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_legend()
    )
