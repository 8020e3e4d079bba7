"""The dashboards, and the files that Grafana loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from compose.grafana import (
    actor,
    broker_and_database,
    dead_letters,
    overview,
    pools,
    scheduler,
)

__all__ = ["DASHBOARDS", "FOLDER", "files"]

FOLDER = Path(__file__).resolve().parent / "dashboards"
#: In the order in which somebody who was just woken up opens them.
DASHBOARDS: Mapping[str, Callable[[], Dashboard]] = {
    "overview": overview.dashboard,
    "pools": pools.dashboard,
    "actor": actor.dashboard,
    "dead-letters": dead_letters.dashboard,
    "scheduler": scheduler.dashboard,
    "broker-and-database": broker_and_database.dashboard,
}


def files() -> dict[Path, str]:
    """Return every file as it should be."""
    encoder = JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False)
    return {
        FOLDER / f"{name}.json": encoder.encode(build()) + "\n"
        for name, build in DASHBOARDS.items()
    }
