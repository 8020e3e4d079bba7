"""The metrics of a worker pool: what its processes have counted, added up.

**Counts are files.** A process of the pool counts into files of its own in one folder, in shared
memory, so that what is counted outlives it however it ends; the launcher reads them when it is
asked, and adds up. When a process is gone, its counts are added to those of all that went before,
its gauges are forgotten, and its files are removed: there are never more than for the processes
that are alive.

**Exemplars are told.** prometheus_client's files have no room for them. A process sends its latest
ones beside its status, and they are joined to the samples that they belong to.
"""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from leveret.health import exposition

if TYPE_CHECKING:
    from prometheus_client.core import Exemplar, Metric

__all__ = ["PoolMetrics"]

log = structlog.get_logger("leveret.worker")

_PREFIX = "leveret-metrics-"
#: In the place of a process id: those that are gone.
_GONE = "gone"

_Key = tuple[str, frozenset[tuple[str, str]]]


class PoolMetrics:
    """What the processes of one pool have counted. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exemplars: dict[_Key, Exemplar] = {}
        #: Processes that died and were started again.
        self.restarts = 0
        #: Where they count, for `PROMETHEUS_MULTIPROC_DIR`.
        self.folder = _new_folder()

    def keep(self, exemplars: Iterable[Any]) -> None:
        """Keep exemplars as a process of the pool has sent them: each a list of their fields."""
        from prometheus_client.core import Exemplar  # noqa: PLC0415 - 10 MB

        with self._lock:
            for sample, sample_labels, labels, value, at in exemplars:
                key = (sample, frozenset(sample_labels.items()))
                known = self._exemplars.get(key)
                if known is None or (known.timestamp or 0) <= at:
                    self._exemplars[key] = Exemplar(labels, value, at)

    def put_away(self) -> None:
        """Add up what processes that are gone have counted, and remove their files."""
        with self._lock:
            self._put_away()

    def _put_away(self) -> None:
        for path in Path(self.folder).glob("*_*.db"):
            kind, _, pid = path.stem.rpartition("_")
            if not pid.isdigit() or _is_alive(int(pid)):
                continue
            if not kind.startswith("gauge") and path.stat().st_size:
                try:
                    _add(path, to=path.with_name(f"{kind}_{_GONE}.db"))
                except (OSError, RuntimeError, ValueError, struct.error) as error:
                    log.warning("worker.metrics_lost", pid=int(pid), error=repr(error))
            path.unlink(missing_ok=True)

    def write(self, accept: str) -> tuple[str, bytes]:
        """Write the metrics in the format that is asked for; return its type and the text."""
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - 10 MB

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return exposition(registry, accept)

    def collect(self) -> Iterator[Metric]:
        """Add up, and yield each metric, as prometheus_client's registry asks for them."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - 10 MB
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

        from leveret import metrics  # noqa: PLC0415

        with self._lock:
            self._put_away()
            # A process that is just starting makes its files empty.
            files = [str(p) for p in Path(self.folder).glob("*_*.db") if p.stat().st_size]
            merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
            found = {metric.name: metric for metric in merged}
            self._join_exemplars(found.values())
        [restarts] = metrics.WORKER_RESTARTS.describe()
        restarts.add_sample(f"{restarts.name}_total", {}, self.restarts)
        yield from {**found, restarts.name: restarts}.values()
        [about] = metrics.BUILD_INFO.describe()
        info = GaugeMetricFamily(about.name, about.documentation, labels=["version", "process"])
        info.add_metric([metrics.release(), metrics.WORKER], 1)
        yield info

    def _join_exemplars(self, found: Iterable[Metric]) -> None:
        from leveret import metrics  # noqa: PLC0415 - 10 MB

        for metric in found:
            metric.unit = metrics.unit_of(metric.name)
            if metric.type not in ("counter", "histogram"):
                continue
            for index, sample in enumerate(metric.samples):
                exemplar = self._exemplars.get((sample.name, frozenset(sample.labels.items())))
                if exemplar is not None:
                    metric.samples[index] = sample._replace(exemplar=exemplar)

    def remove(self) -> None:
        """Forget everything; the pool has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _add(path: Path, *, to: Path) -> None:
    """Add the counts in a file to those in another."""
    from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415 - 10 MB

    # All of them before the first is added: a file may be torn.
    read: Any = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    values = list(read)
    sums: Any = MmapedDict(str(to))  # type: ignore[no-untyped-call]
    try:
        for key, value, at, _ in values:
            sums.write_value(key, sums.read_value(key)[0] + value, at)
    finally:
        sums.close()


def _new_folder() -> str:
    """Make a folder for counts; remove those of launchers that were killed."""
    parent = Path(tempfile.gettempdir())
    for folder in parent.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
