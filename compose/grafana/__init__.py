"""The dashboards, as code: ``python -m compose.grafana`` writes what Grafana loads.

One module for each dashboard; `query` writes PromQL from the metrics of `leveret.metrics`, `panel`
has the kinds of panels, `board` what all dashboards share. `answer` does to a query what Grafana
does before it asks Prometheus, and `picture` draws a dashboard from the answers.
"""

from compose.grafana.dashboards import DASHBOARDS, FOLDER, files

__all__ = ["DASHBOARDS", "FOLDER", "files"]
