"""PromQL, written from metric objects: one that is renamed, or loses a label, breaks the build.

Every function returns an expression. ``by`` names the labels that stay, ``where`` what labels must
be: a value, or `like`, or a dashboard's variable (``"$queue"``), which may have several values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "RANGE",
    "RATE",
    "Like",
    "alerts",
    "broker",
    "buckets",
    "count",
    "gauge",
    "increase",
    "mean",
    "quantile",
    "rate",
    "recorded",
    "share",
    "top",
    "zero",
]

#: The window that fits what one point of a graph stands for, as Grafana computes it.
RATE = "$__rate_interval"
#: All of the time that the dashboard shows.
RANGE = "$__range"

_RULES = Path(__file__).resolve().parents[1] / "prometheus" / "rules"
_RECORDING = _RULES / "recording.yaml"
#: What Prometheus adds to all that it scrapes; `pool` where a worker pool is.
_SCRAPED = frozenset({"instance", "job", "pool"})
#: What RabbitMQ's plugin tells, from 3.10 to 4.3, and by which labels.
_BROKER = {
    "rabbitmq_alarms_free_disk_space_watermark": (),
    "rabbitmq_alarms_memory_used_watermark": (),
    "rabbitmq_disk_space_available_bytes": (),
    "rabbitmq_disk_space_available_limit_bytes": (),
    "rabbitmq_process_resident_memory_bytes": (),
    "rabbitmq_queue_consumers": ("vhost", "queue"),
    "rabbitmq_queue_messages": ("vhost", "queue"),
    "rabbitmq_queue_messages_ready": ("vhost", "queue"),
    "rabbitmq_resident_memory_limit_bytes": (),
}


@dataclass(frozen=True)
class Like:
    """A regular expression that a label's value must match, or must not."""

    pattern: str
    negated: bool = False


Where = str | Like


def rate(metric: Counter, *by: str, over: str = RATE, **where: Where) -> str:
    """Return how often a second it is counted."""
    return _sum(by, f"rate({_series(metric, '_total', by, where)}[{over}])")


def increase(metric: Counter, *by: str, over: str = RANGE, **where: Where) -> str:
    """Return how often it was counted, as a whole number.

    A series that appears with its first count has no increase: so what was not there before counts
    as a whole.
    """
    series = _series(metric, "_total", by, where)
    found = _sum(by, f"({series} unless {series} offset {over}) or increase({series}[{over}])")
    return f"round({found})"


def quantile(q: float, metric: Histogram, *by: str, over: str = RATE, **where: Where) -> str:
    """Return what a share ``q`` of the measured values is below."""
    return f"histogram_quantile({q}, {buckets(metric, *by, over=over, **where)})"


def buckets(metric: Histogram, *by: str, over: str = RATE, **where: Where) -> str:
    """Return how often a second a value up to each bound is measured."""
    return _sum((*by, "le"), f"rate({_series(metric, '_bucket', by, where)}[{over}])")


def count(metric: Histogram, *by: str, over: str = RATE, **where: Where) -> str:
    """Return how often a second a value is measured."""
    return _sum(by, f"rate({_series(metric, '_count', by, where)}[{over}])")


def mean(metric: Histogram, *by: str, over: str = RATE, **where: Where) -> str:
    """Return the mean of the values measured."""
    total = _sum(by, f"rate({_series(metric, '_sum', by, where)}[{over}])")
    return f"{total} / {count(metric, *by, over=over, **where)}"


def gauge(metric: Gauge, aggregate: str, *by: str, **where: Where) -> str:
    """Return the ``aggregate`` (sum, max, min) over processes, as each of them shows it.

    What a process does not know is 0 there, or NaN, which counts in none of these.
    """
    return f"{aggregate}{_by(by)} ({_series(metric, '', by, where)})"


def recorded(rule: str, **where: Where) -> str:
    """Return what a rule records; raises `LookupError` when there is no such rule."""
    if rule not in _recorded():
        raise LookupError(f"no rule of {_RECORDING.name} records {rule}")
    return rule + _braces(where)


def broker(metric: str, **where: Where) -> str:
    """Return what RabbitMQ's plugin tells, of the queues ``leveret.*`` where it is of queues."""
    labels = _BROKER[metric]
    if "queue" in labels:
        where = {"queue": Like(r"leveret\\..+"), **where}
    return metric + _braces(where)


def alerts() -> str:
    """Return the alerts that hold, with the page of their runbook as the label ``runbook``."""
    found = 'max by (alertname, severity, alertstate) (ALERTS{alertname=~"Leveret.*"})'
    for page in sorted(_RULES.glob("*.yaml")):
        names = re.findall(r"^ *- alert: (\S+)$", page.read_text(), re.MULTILINE)
        if names:
            found = (
                f'label_replace({found}, "runbook", "{page.stem}", '
                f'"alertname", "{"|".join(names)}")'
            )
    return found


def share(part: str, whole: str) -> str:
    """Return a part of a whole, as a number up to 1; 0 where nothing of it is the part.

    Nothing where the whole is 0.
    """
    return f"({part} or {whole} * 0) / ({whole} > 0)"


def top(number: int, expression: str) -> str:
    """Return the largest series at each time."""
    return f"topk({number}, {expression})"


def zero(expression: str) -> str:
    """Return 0 where an expression finds nothing, as for a counter that was never raised."""
    return f"({expression}) or vector(0)"


def _recorded() -> set[str]:
    return set(re.findall(r"^ *- record: (\S+)$", _RECORDING.read_text(), re.MULTILINE))


def _series(
    metric: Counter | Gauge | Histogram, suffix: str, by: tuple[str, ...], where: dict[str, Where]
) -> str:
    described: Any = metric
    labels = frozenset(described._labelnames)  # noqa: SLF001 - nothing public tells them
    (family,) = metric.describe()
    unknown = {*by, *where} - labels - _SCRAPED - {"le"}
    if unknown:
        raise LookupError(f"{family.name} has no label {', '.join(sorted(unknown))}")
    return family.name + suffix + _braces(where)


def _braces(where: dict[str, Where]) -> str:
    matchers = [_matcher(label, wanted) for label, wanted in where.items()]
    return f"{{{', '.join(matchers)}}}" if matchers else ""


def _matcher(label: str, wanted: Where) -> str:
    if isinstance(wanted, Like):
        return f'{label}{"!~" if wanted.negated else "=~"}"{wanted.pattern}"'
    return f'{label}{"=~" if wanted.startswith("$") else "="}"{wanted}"'


def _sum(by: tuple[str, ...], expression: str) -> str:
    return f"sum{_by(by)} ({expression})"


def _by(by: tuple[str, ...]) -> str:
    return f" by ({', '.join(by)})" if by else ""
