"""Pictures of dashboards: each panel drawn where its JSON puts it, from what its queries answer.

Grafana itself is not needed, and does not draw them: this renderer knows the kinds of panels, the
units, thresholds, colours, legends and transformations that `compose.grafana.panel` uses, and has
Grafana's dark look.

`series` asks the source, and `dashboard` lays out what it answered. Each kind of panel has a module
(`stat`, `lines`, `bars`, `table`, `heatmap`), which draws on the `page`; `axes` and `legend` are
those of graphs over time, `colors` has the look, and `png` makes a file of it all.
"""

from compose.grafana.picture.dashboard import draw
from compose.grafana.picture.series import Found, Source

__all__ = ["Found", "Source", "draw"]
