"""The metrics of a worker pool: what its children have counted, added up."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["pool_metrics"]


def pool_metrics(folder: str, restarts: int) -> bytes:
    """Add up what the children have written into ``folder``."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - 10 MB
    from prometheus_client.core import CounterMetricFamily, Metric  # noqa: PLC0415
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

    class Restarts:
        def collect(self) -> Iterator[Metric]:
            yield CounterMetricFamily(
                "leveret_worker_restarts",
                "Worker processes that died and were started again.",
                value=restarts,
            )

    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    registry.register(Restarts())
    return generate_latest(registry)
