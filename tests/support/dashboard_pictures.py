"""``make dashboard-pictures``: play a story on a working stack, and draw every dashboard from it.

The story has what the dashboards are for: a burst that makes a backlog, a counterpart that does not
answer for a while, a worker that is killed, a scheduler that dies and is replaced, a replay. It
takes as long as it says; the pictures go to docs/images.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from compose.grafana import DASHBOARDS, FOLDER
from compose.grafana.answer import Window
from compose.grafana.picture import draw
from compose.native.paths import Checkout
from tests.support.processes import ROOT
from tests.support.prometheus import Prometheus
from tests.support.scene import Scene

PICTURES = ROOT / "docs" / "images"
POOLS = {
    "critical": ("critical", 4),
    "default": ("default", 8),
    "bulk": ("bulk", 4),
    "scheduled": ("scheduled", 2),
}
MINUTES = 12.0
CHOSEN = {"queue": ".*", "actor": "webhook.deliver"}


def tell(scene: Scene, minutes: float) -> None:
    """Let happen what the pictures show, each at its share of the time."""
    began = time.monotonic()

    def until(share: float) -> None:
        time.sleep(max(0.0, began + share * minutes * 60 - time.monotonic()))

    scene.canary()
    scene.play(rate=14)
    until(0.2)
    scene.put("image.resize", 250, seconds=0.5)
    scene.put("report.build", 20, seconds=2.0)
    until(0.3)
    scene.put("order.charge", 16, seconds=0.4)
    scene.put("email.send", 15, fate="refused")
    until(0.4)
    # What webhooks call is away: most attempts fail, and some jobs run out of them.
    for step in range(30):
        until(0.4 + step * 0.16 / 30)
        scene.put("webhook.deliver", 16, fate="flaky")
        scene.put("webhook.deliver", 3, fate="hopeless")
    scene.put("image.resize", fate="kill")
    scene.misaddress()
    until(0.62)
    for name in [name for name in scene.processes if name.startswith("scheduler")]:
        if scene.processes[name].metric("leveret_scheduler_is_leader") == 1:
            scene.processes[name].kill()
    until(0.75)
    scene.replay("email.send")
    until(1.0)


def picture(prometheus: Prometheus, window: Window) -> None:
    """Draw every dashboard."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        document = json.loads((FOLDER / f"{name}.json").read_text())
        file = PICTURES / f"dashboard-{name}.png"
        file.write_bytes(draw(document, prometheus, CHOSEN, window))
        print(f"drawn: {file.relative_to(ROOT)}, {file.stat().st_size // 1024} KiB", flush=True)


def main() -> int:
    """Play the story and draw."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    print(f"a stack works for {minutes:g} minutes, then the dashboards are drawn", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        Scene(
            Checkout.here(), Path(folder), pools=POOLS, schedulers=2, hurried=False, interval=2
        ) as scene,
    ):
        print(f"Prometheus: {scene.prometheus.url}", flush=True)
        start = time.time()
        tell(scene, minutes)
        picture(scene.prometheus, Window(start=start, end=time.time(), points=150, scraped_every=5))
        if "--keep" in sys.argv:
            time.sleep(7200)
    return 0


if __name__ == "__main__":
    sys.exit(main())
