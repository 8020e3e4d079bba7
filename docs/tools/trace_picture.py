"""Draw the trace in docs/assets/trace.json, whose spans were exported by real processes.

To have others: run ``pytest -n 0 tests/e2e/test_traces.py -k two_attempts`` with the variable
``LEVERET_KEEP_TRACE=docs/assets/trace.json``, and then ``python -m docs.tools.trace_picture``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

ASSETS = Path(__file__).parents[1] / "assets"
SPANS = ASSETS / "trace.json"
PICTURE = ASSETS / "trace.svg"
#: What is waited for is lighter than what is done.
COLOURS = {"shop": "#3f51b5", "leveret-worker": "#00897b"}
WAITS = "#b0bec5"
FAILED = "#e53935"


def ordered(spans: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Put spans into the order of their tree, each with its depth."""
    found: list[tuple[int, dict[str, Any]]] = []

    def add(parent: str, depth: int) -> None:
        for span in sorted(spans, key=lambda each: (each["start"], each["end"])):
            if span["parent"] == parent:
                found.append((depth, span))
                add(span["span_id"], depth + 1)

    add("", 0)
    return found


def draw(spans: list[dict[str, Any]], target: Path) -> None:
    """Draw spans as bars over their time."""
    mpl.rcParams["svg.hashsalt"] = "leveret"  # the same picture from the same spans
    mpl.rcParams["svg.fonttype"] = "none"
    rows = ordered(spans)
    begin = min(span["start"] for span in spans)
    end = max(span["end"] for span in spans)
    figure = Figure(figsize=(10, 0.32 * len(rows) + 1.1))
    axes = figure.add_axes((0.27, 0.14, 0.71, 0.76))
    for row, (depth, span) in enumerate(rows):
        start, width = (span["start"] - begin) * 1000, (span["end"] - span["start"]) * 1000
        waits = span["name"].startswith(("queue ", "delay ", "outbox "))
        colour = WAITS if waits else FAILED if span["failed"] else COLOURS[span["service"]]
        least = (end - begin) * 1000 / 300  # what is too short is seen all the same
        axes.barh(row, max(width, least), left=start, height=0.62, color=colour)
        label = f"{width:.1f} ms" if width < 100 else f"{width:.0f} ms"
        late = start > 0.8 * (end - begin) * 1000
        axes.annotate(
            label,
            (start if late else start + max(width, least), row),
            xytext=(-4 if late else 4, 0),
            textcoords="offset points",
            va="center",
            ha="right" if late else "left",
            fontsize=8,
        )
        axes.annotate(
            "   " * depth + span["name"],
            (-0.37, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel("milliseconds", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    legend = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    legend += [Patch(color=FAILED, label="failed"), Patch(color=WAITS, label="waiting")]
    figure.legend(handles=legend, loc="upper right", ncols=4, fontsize=8, frameon=False)
    figure.savefig(target, format="svg", metadata={"Date": None})


def main() -> None:
    """Draw the picture of the documentation."""
    draw(json.loads(SPANS.read_text()), PICTURE)


if __name__ == "__main__":
    main()
