"""Run the benchmarks: `python -m tests.benchmarks --rounds 3 --only drain,latency`."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.arena import ROOT, Arena
from tests.benchmarks.contestants import CONTESTANTS, Contestant
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.figures import rotated
from tests.benchmarks.node import Node
from tests.benchmarks.scenarios import Sample, Scenario
from tests.benchmarks.scenarios.delayed import Delayed
from tests.benchmarks.scenarios.drain import Drain
from tests.benchmarks.scenarios.latency import Latency
from tests.benchmarks.scenarios.memory import MemoryUse
from tests.benchmarks.scenarios.publish import Publish
from tests.benchmarks.scenarios.retry import Retry

_PACKAGES = ("dramatiq", "celery", "taskiq", "taskiq-aio-pika", "faststream", "pika")


def scenarios(*, quick: bool) -> list[Scenario]:
    """Return all scenarios, in the order in which they run; `quick` only shows that they work."""
    if quick:
        return [
            Publish(one_at_a_time=50, pipelined=200),
            Drain(jobs=500),
            Latency(jobs=20),
            Delayed(jobs=200, seconds=3.0, lead=5.0),
            Retry(jobs=100),
            MemoryUse(jobs=50),
        ]
    return [Publish(), Drain(), Latency(), Delayed(), Retry(), MemoryUse()]


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    names = [scenario.name for scenario in scenarios(quick=True)]
    contestants = [contestant.name for contestant in CONTESTANTS]
    parser.add_argument("--rounds", type=int, default=4, help="interleaved rounds (default: 4)")
    parser.add_argument("--only", default="", help=f"of {','.join(names)} (default: all)")
    parser.add_argument("--contestants", default="", help=f"of {','.join(contestants)}")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--quick", action="store_true", help="tiny counts: does everything run?")
    chosen = parser.parse_args(arguments)
    for option, text, known in (
        ("--only", chosen.only, names),
        ("--contestants", chosen.contestants, contestants),
    ):
        if unknown := set(filter(None, text.split(","))) - set(known):
            parser.error(f"{option}: unknown: {', '.join(sorted(unknown))}; there are {known}")
    if chosen.rounds < 1:
        parser.error(f"--rounds: at least 1, not {chosen.rounds}")
    return chosen


def _participants(scenario: Scenario, asked: frozenset[str]) -> list[Contestant]:
    return [
        contestant
        for contestant in CONTESTANTS
        if contestant.can(scenario.needs)
        and (contestant.name in asked if asked else contestant.name not in scenario.on_request)
    ]


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for, print tables and write the figures; return the exit status."""
    chosen = _arguments(arguments)
    only = frozenset(filter(None, chosen.only.split(",")))
    asked = frozenset(filter(None, chosen.contestants.split(",")))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    results: dict[str, dict[str, list[Sample]]] = {}
    start = time.monotonic()
    try:
        with Node() as node:
            arena = Arena(node, logs=chosen.output.parent / "bench-logs")
            conditions = {
                "rabbitmq": node.version(),
                "python": platform.python_version(),
                "processors": os.cpu_count(),
                "rounds": chosen.rounds,
                "packages": {name: metadata.version(name) for name in _PACKAGES},
                "load_before": os.getloadavg()[0],
            }
            for scenario in scenarios(quick=chosen.quick):
                if only and scenario.name not in only:
                    continue
                rows: dict[str, list[Sample]] = {}
                results[scenario.name] = rows
                participants = _participants(scenario, asked)
                rounds = min(chosen.rounds, scenario.most_rounds or chosen.rounds)
                for number in range(rounds):
                    for contestant in rotated(participants, number):
                        if contestant.most_rounds is not None and number >= contestant.most_rounds:
                            continue
                        console.print(
                            f"{time.monotonic() - start:5.0f} s  {scenario.name} "
                            f"{number + 1}/{rounds}  {contestant.name}",
                            highlight=False,
                        )
                        sample = scenario.run(arena, contestant)
                        rows.setdefault(contestant.name, []).append(sample)
                order = [contestant.name for contestant in participants]
                results[scenario.name] = {name: rows[name] for name in order}
            conditions["seconds"] = round(time.monotonic() - start)
    except BenchmarkError as error:
        console.print(f"benchmark failed: {error}", style="red", highlight=False, markup=False)
        return 1
    report.show(console, results)
    report.write(chosen.output, results, conditions=conditions)
    console.print(f"written to {chosen.output} after {conditions['seconds']} s", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
