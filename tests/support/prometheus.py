"""A Prometheus of one test: give it targets and rules, ask it queries, see which alerts fire."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from compose.native import ports
from tests.support.processes import ROOT
from tests.support.waiting import wait_until
from tests.support.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The rules that the stack runs with.
RULES = ROOT / "compose" / "prometheus" / "rules"
#: The broker tells of single queues here; `/metrics` has only their sums.
PER_OBJECT = "/metrics/per-object"


@dataclass(frozen=True)
class Target:
    """What is scraped: a port on the loopback interface, the job's name, and labels to add."""

    port: int
    job: str = "leveret"
    path: str = "/metrics"
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def broker(cls, port: int) -> Self:
        """Return the Prometheus plugin of a RabbitMQ, with every queue of its own."""
        return cls(port, job="rabbitmq", path=PER_OBJECT)


@dataclass(frozen=True)
class Sample:
    """One element of an answer: its labels, and its value at one time or `points` over a range."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        """The newest value."""
        return self.points[-1][1]


class Prometheus(Watcher):
    """A private server that scrapes `targets` every ``interval`` seconds; end it with `close`.

    ``rules`` are files; they are read as they are, and groups without an interval of their own are
    evaluated as often as targets are scraped. Skips the test where no Prometheus can be had.
    """

    def __init__(
        self,
        folder: Path,
        targets: Iterable[Target] = (),
        *,
        rules: Iterable[Path] | None = None,
        interval: float = 1.0,
        alertmanagers: Iterable[int] = (),
    ) -> None:
        port = ports.choose()
        own = folder / f"prometheus-{port}"
        own.mkdir(parents=True)
        self._targets = own / "targets.json"
        self.scrape(targets)
        seconds = f"{round(interval * 1000)}ms"
        config = {
            "global": {
                "scrape_interval": seconds,
                "scrape_timeout": seconds,
                "evaluation_interval": seconds,
            },
            "rule_files": [
                str(path) for path in (sorted(RULES.glob("*.yaml")) if rules is None else rules)
            ],
            "alerting": {
                "alertmanagers": [
                    {"static_configs": [{"targets": [f"{ports.HOST}:{port}"]}]}
                    for port in alertmanagers
                ]
            },
            "scrape_configs": [
                {
                    "job_name": "targets",  # each brings the name of its own
                    "file_sd_configs": [
                        {"files": [str(self._targets)], "refresh_interval": seconds}
                    ],
                }
            ],
        }
        self._client = httpx.Client(
            base_url=f"http://{ports.HOST}:{port}", timeout=30, trust_env=False
        )
        super().__init__(
            "prometheus",
            own,
            yaml.safe_dump(config),
            ["--enable-feature=exemplar-storage"],
            port=port,
        )

    def close(self) -> None:
        """End it, and return when it is gone."""
        self._client.close()
        super().close()

    # ---------------------------------------------------------------------------------- its targets

    def scrape(self, targets: Iterable[Target]) -> None:
        """Scrape these from now on, and nothing else."""
        groups = [
            {
                "targets": [f"{ports.HOST}:{target.port}"],
                "labels": {
                    **target.labels,
                    "job": target.job,
                    "__metrics_path__": target.path,
                },
            }
            for target in targets
        ]
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(groups))
        fresh.rename(self._targets)

    def wait_scraped(self, count: int, timeout: float = 60.0) -> None:
        """Return when so many targets have answered."""
        wait_until(
            lambda: self.value("sum(up)") == count,
            timeout=timeout,
            every=0.2,
            what=f"{count} targets answer Prometheus",
        )

    # ---------------------------------------------------------------------------------- its answers

    def query(self, expression: str, *, at: float | None = None) -> list[Sample]:
        """Evaluate an expression now, or at a time; raises `ValueError` if it is none."""
        parameters = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        answer = self._ask("/api/v1/query", parameters)
        if answer["resultType"] in ("scalar", "string"):
            return [Sample({}, (_point(answer["result"]),))]
        return [
            Sample(one["metric"], (_point(one["value"]),))
            for one in answer["result"]
            if "value" in one
        ]

    def query_range(
        self, expression: str, *, start: float, end: float, step: float
    ) -> list[Sample]:
        """Evaluate an expression at each step of a range (Unix times, seconds)."""
        answer = self._ask(
            "/api/v1/query_range",
            {
                "query": expression,
                "start": f"{start:.3f}",
                "end": f"{end:.3f}",
                "step": f"{step:.3f}",
            },
        )
        return [
            Sample(one["metric"], tuple(map(_point, one["values"])))
            for one in answer["result"]
            if "values" in one
        ]

    def exemplars(self, expression: str, *, start: float, end: float) -> list[tuple[float, float]]:
        """Return the times and values of single measurements that a trace was noted for."""
        answer = self._ask(
            "/api/v1/query_exemplars",
            {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}"},
        )
        return sorted(
            (float(one["timestamp"]), float(one["value"]))
            for series in answer
            for one in series["exemplars"]
            if one["labels"].get("trace_id")
        )

    def value(self, expression: str) -> float:
        """Return the one value of an expression; NaN when it has none, or several."""
        found = self.query(expression)
        return found[0].value if len(found) == 1 else math.nan

    def has_data(self, expression: str) -> bool:
        """Tell whether an expression has a value that is a number."""
        return any(not math.isnan(sample.value) for sample in self.query(expression))

    def wait(self, expression: str, *, timeout: float = 60.0) -> list[Sample]:
        """Return the samples of an expression when there are any.

        Write a condition as a comparison, which leaves nothing of what it does not hold for:
        ``prometheus.wait("leveret_dead_letters_open > 3")``.
        """
        return wait_until(
            lambda: self.query(expression), timeout=timeout, every=0.2, what=expression
        )

    def traced(self, selector: str) -> list[dict[str, Any]]:
        """Return the exemplars of some series in the last hour, with their labels."""
        now = time.time()
        found: Any = self._ask(
            "/api/v1/query_exemplars",
            {"query": selector, "start": f"{now - 3600:.3f}", "end": f"{now + 60:.3f}"},
        )
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def alerts(self, name: str = "") -> list[dict[str, Any]]:
        """Return the alerts that are pending or firing, as Prometheus tells them."""
        return [
            alert
            for alert in self._ask("/api/v1/alerts", {})["alerts"]
            if name in ("", alert["labels"]["alertname"])
        ]

    def _ask(self, path: str, parameters: Mapping[str, str]) -> Any:
        answer = self._client.get(path, params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(f"{parameters}: {answer['error']}")
        return answer["data"]


def _point(pair: tuple[float, str]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


__all__ = ["PER_OBJECT", "RULES", "Prometheus", "Sample", "Target"]
