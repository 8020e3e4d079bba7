"""Every query of every dashboard finds numbers in a Prometheus that scrapes a working stack."""

from __future__ import annotations

import json
import math
import re
import time
from typing import TYPE_CHECKING

import pytest

from compose.grafana import DASHBOARDS, FOLDER
from compose.grafana.answer import Window, asked
from tests.support.scene import Scene
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from compose.native.paths import Checkout

DOCUMENTS = [json.loads((FOLDER / f"{name}.json").read_text()) for name in DASHBOARDS]
CHOSEN = {"queue": ".*", "actor": "webhook.deliver"}
#: What stands for no series at all is left out, so that a metric which is not there is noticed.
_FALLBACK = re.compile(r" or vector\(0\)$")


@pytest.mark.timeout(300)
def test_every_query_of_every_dashboard_finds_numbers(checkout: Checkout, tmp_path: Path) -> None:
    """Real ones, of metrics that are there: a gap would be a panel that shows nothing at night.

    The lists of the variables have what can be chosen, and latencies the traces of single jobs.
    """
    pools = {"default": ("critical,default", 4), "bulk": ("bulk,scheduled", 4)}
    with Scene(checkout, tmp_path, pools=pools) as scene:
        _let_all_happen(scene)
        _wait_for_numbers(scene)
        _wait_for_exemplars(scene)
        assert {"critical", "default", "bulk", "scheduled"} <= _choices(scene, "queue")
        assert {"email.send", "webhook.deliver"} <= _choices(scene, "actor")


def _let_all_happen(scene: Scene) -> None:
    """Induce what a healthy stack does not show."""
    scene.play(rate=10)
    scene.put("email.send", 3, fate="refused")
    scene.put("webhook.deliver", 3, fate="hopeless")
    scene.put("image.resize", fate="kill")
    scene.misaddress()
    scene.canary()
    prometheus = scene.prometheus
    prometheus.wait("max(leveret_dead_letters_open) >= 3")
    scene.replay("email.send")
    for condition in (
        "sum(leveret_replayed_total) > 0",
        'sum(leveret_dead_letters_total{actor="webhook.deliver"}) > 0',
        "sum(leveret_worker_restarts_total) > 0",
        "sum(leveret_publish_failures_total) > 0",
        "max(leveret_canary_seconds) > 0",
        "max(leveret_schedule_gaps) >= 0",
        "leveret:queue_time_late:ratio_rate3d",
    ):
        prometheus.wait(condition)
    scene.canary()  # a rate takes two of them


def _wait_for_numbers(scene: Scene) -> None:
    empty = ["nothing was asked"]

    def filled() -> bool:
        nonlocal empty
        window = Window(start=scene.began, end=time.time(), points=60, scraped_every=2)
        empty = [
            f"{document['title']}, {query.title} ({query.ref}): {query.expression}"
            for document in DOCUMENTS
            for query in asked(document, CHOSEN, window)
            if not _has_numbers(scene, query.expression, window)
        ]
        return not empty

    try:
        wait_until(filled, timeout=90, every=1)
    except TimeoutError:
        pytest.fail("no numbers for\n" + "\n".join(empty))


def _has_numbers(scene: Scene, expression: str, window: Window) -> bool:
    found = scene.prometheus.query(_FALLBACK.sub("", expression), at=window.end)
    return any(math.isfinite(sample.value) for sample in found)


def _wait_for_exemplars(scene: Scene) -> None:
    window = Window(start=scene.began, end=time.time() + 60)
    queries = {
        query.title: query.expression
        for document in DOCUMENTS
        for query in asked(document, CHOSEN, window)
        if query.exemplars
    }
    assert queries
    for title, expression in queries.items():
        wait_until(
            lambda expression=expression: scene.prometheus.exemplars(
                expression, start=scene.began, end=time.time()
            ),
            timeout=60,
            every=0.5,
            what=f"{title} has a trace",
        )


def _choices(scene: Scene, name: str) -> set[str]:
    """Return what a variable offers."""
    (query,) = {
        variable["query"]["query"]
        for document in DOCUMENTS
        for variable in document["templating"]["list"]
        if variable["name"] == name
    }
    metric, label = re.findall(r"\w+", query)[1:]
    samples = scene.prometheus.query(f"count by ({label}) ({metric})")
    return {sample.labels[label] for sample in samples}
