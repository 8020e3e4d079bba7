"""What the rounds come to: the keys of `build/bench.json`, and tables for people."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.contestants import (
    CONTESTANTS,
    DRAMATIQ,
    DRAMATIQ_TRACKED,
    DRAMATIQ_TUNED,
    LEVERET,
    LEVERET_OUTBOX,
    LEVERET_SCHEDULER,
    LEVERET_TRACKED,
)
from tests.benchmarks.figures import Spread, ratio, spread
from tests.benchmarks.scenarios import Sample

#: Scenario, contestant, rounds.
Results = Mapping[str, Mapping[str, Sequence[Sample]]]


def values(results: Results, scenario: str, contestant: str, figure: str) -> list[float]:
    """Return one figure of all rounds; empty when it was not measured."""
    samples = results.get(scenario, {}).get(contestant, ())
    return [sample[figure] for sample in samples if figure in sample]


def headline(results: Results) -> dict[str, float | None]:
    """Return the figures that are promised; `None` for one that this run did not measure."""

    def against(scenario: str, figure: str, base: str, base_figure: str | None = None) -> Any:
        return ratio(
            values(results, scenario, LEVERET, figure),
            values(results, scenario, base, base_figure or figure),
        )

    def ours(scenario: str, figure: str, contestant: str = LEVERET) -> float | None:
        rounds = values(results, scenario, contestant, figure)
        return spread(rounds).median if rounds else None

    confirmed = "confirmed_per_second"
    tracked = "jobs_per_second"
    return {
        "publish_confirmed_ratio": against("publish", confirmed, DRAMATIQ),
        "publish_pipelined_ratio": against("publish", "pipelined_per_second", DRAMATIQ, confirmed),
        "drain_ratio": against("drain", "jobs_per_second", DRAMATIQ),
        "drain_vs_tuned_ratio": against("drain", "jobs_per_second", DRAMATIQ_TUNED),
        "latency_p50_ratio": against("latency", "p50_ms", DRAMATIQ),
        "delayed_late_p99_seconds": ours("delayed", "late_p99_seconds"),
        "delayed_early": ours("delayed", "early"),
        "delayed_lost": ours("delayed", "lost"),
        "delayed_rss_mb_per_10k": ours("delayed", "pss_mb_per_10k"),
        "retry_ratio": against("retry", "jobs_per_second", DRAMATIQ),
        "rss_mb": ours("memory", "pss_mb"),
        "tracked_ratio": ratio(
            values(results, "tracked", LEVERET_TRACKED, tracked),
            values(results, "tracked", DRAMATIQ_TRACKED, tracked),
        ),
        "recorder_jobs_per_second": ours("recorder", "recorder_jobs_per_second", LEVERET_TRACKED),
        "outbox_start_p50_ms": ours("outbox", "start_p50_ms", LEVERET_OUTBOX),
        "api_publish_p50_ms": ours("api", "publish_p50_ms", LEVERET_OUTBOX),
        "once_ratio": ratio(
            values(results, "once", LEVERET_TRACKED, "once_per_second"),
            values(results, "once", LEVERET_TRACKED, "plain_per_second"),
        ),
        "schedules_start_seconds": ours("scheduler", "start_seconds", LEVERET_SCHEDULER),
        "schedules_late_p99_ms": ours("scheduler", "late_p99_ms", LEVERET_SCHEDULER),
        "schedules_rss_mb": ours("scheduler", "rss_mb", LEVERET_SCHEDULER),
    }


def write(path: Path, results: Results, *, conditions: Mapping[str, Any]) -> None:
    """Write the headline figures, and everything they come from under `details`."""
    details = {
        "conditions": dict(conditions),
        "notes": {contestant.name: contestant.note for contestant in CONTESTANTS},
        "spreads": {
            scenario: {
                name: {
                    figure: dataclasses.asdict(spread(values(results, scenario, name, figure)))
                    for figure in _figures(samples)
                }
                for name, samples in rows.items()
            }
            for scenario, rows in results.items()
        },
        "rounds": {
            scenario: {name: [dict(sample) for sample in samples] for name, samples in rows.items()}
            for scenario, rows in results.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {
        key: None if value is None else round(value, 4) for key, value in headline(results).items()
    }
    path.write_text(json.dumps({**rounded, "details": details}, indent=2) + "\n")


def show(console: Console, results: Results) -> None:
    """Print a table for each scenario, and the headline figures."""
    for scenario, rows in results.items():
        figures = _figures([sample for samples in rows.values() for sample in samples])
        rounds = max((len(samples) for samples in rows.values()), default=0)
        table = Table(title=f"{scenario}: medians of up to {rounds} rounds, ± half their range")
        table.add_column("contestant", no_wrap=True)
        for figure in figures:
            table.add_column(figure.replace("_", " "), justify="right", overflow="fold")
        for name in rows:
            cells = [values(results, scenario, name, figure) for figure in figures]
            table.add_row(name, *(_cell(spread(cell)) if cell else "-" for cell in cells))
        console.print(table)
    table = Table(title="leveret beside dramatiq; absolute figures are this machine's alone")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in headline(results).items():
        table.add_row(key, "not measured" if value is None else _number(value))
    console.print(table)


def _figures(samples: Sequence[Sample]) -> list[str]:
    return list(dict.fromkeys(figure for sample in samples for figure in sample))


def _cell(seen: Spread) -> str:
    text = _number(seen.median)
    return text if seen.rounds == 1 else f"{text} ±{seen.width / 2:.0%}"


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
