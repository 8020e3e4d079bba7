"""Run the benchmarks: `python -m tests.benchmarks --rounds 3 --only drain,latency`."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.arena import ROOT, Arena
from tests.benchmarks.contestants import CONTESTANTS, Contestant
from tests.benchmarks.database import Database
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.figures import rotated
from tests.benchmarks.node import Node
from tests.benchmarks.scenarios import Sample, Scenario
from tests.benchmarks.scenarios.api_publish import ApiPublish
from tests.benchmarks.scenarios.delayed import Delayed
from tests.benchmarks.scenarios.drain import Drain
from tests.benchmarks.scenarios.latency import Latency
from tests.benchmarks.scenarios.memory import MemoryUse
from tests.benchmarks.scenarios.once import Once
from tests.benchmarks.scenarios.outbox import OutboxStart
from tests.benchmarks.scenarios.publish import Publish
from tests.benchmarks.scenarios.recorder import Recording
from tests.benchmarks.scenarios.retry import Retry
from tests.benchmarks.scenarios.scheduler import Schedules
from tests.benchmarks.scenarios.tracked import Tracked

#: A load average above which other work shares the processors that are measured.
_QUIET_LOAD = 0.5
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
            Tracked(jobs=200),
            Recording(jobs=200),
            OutboxStart(jobs=20),
            ApiPublish(jobs=20),
            Once(jobs=200),
            Schedules(schedules=200, busy=20),
        ]
    return [
        Publish(),
        Drain(),
        Latency(),
        Delayed(),
        Retry(),
        MemoryUse(),
        Tracked(),
        Recording(),
        OutboxStart(),
        ApiPublish(),
        Once(),
        Schedules(),
    ]


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


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _conditions(node: Node, *, rounds: int) -> dict[str, object]:
    return {
        "rabbitmq": node.version(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "rounds": rounds,
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_before": os.getloadavg()[0],
    }


def _measure(
    scenario: Scenario,
    participants: Sequence[Contestant],
    arena: Arena,
    *,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, list[Sample]]:
    """Run one scenario's rounds, each beginning with another contestant."""
    rows: dict[str, list[Sample]] = {contestant.name: [] for contestant in participants}
    rounds = scenario.rounds(rounds)
    for number in range(rounds):
        for contestant in rotated(participants, number):
            if contestant.most_rounds is None or number < contestant.most_rounds:
                say(f"{scenario.name} {number + 1}/{rounds}  {contestant.name}")
                rows[contestant.name].append(scenario.run(arena, contestant))
    return rows


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for, print tables and write the figures; return the exit status."""
    chosen = _arguments(arguments)
    only = frozenset(filter(None, chosen.only.split(",")))
    asked = frozenset(filter(None, chosen.contestants.split(",")))
    console = Console() if sys.stdout.isatty() else Console(width=120)
    results: dict[str, dict[str, list[Sample]]] = {}
    start = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - start:5.0f} s  {text}", highlight=False)

    try:
        with Node() as node, Database() as database:
            conditions = _conditions(node, rounds=chosen.rounds)
            if os.getloadavg()[0] > _QUIET_LOAD:
                say(f"the machine is busy (load {os.getloadavg()[0]:.1f}): expect wide ranges")
            arena = Arena(node, database, logs=chosen.output.parent / "bench-logs")
            for scenario in scenarios(quick=chosen.quick):
                if scenario.name in only or not only:
                    results[scenario.name] = _measure(
                        scenario,
                        _participants(scenario, asked),
                        arena,
                        rounds=chosen.rounds,
                        say=say,
                    )
    except BenchmarkError as error:
        console.print(f"benchmark failed: {error}", style="red", highlight=False, markup=False)
        return 1
    conditions["seconds"] = round(time.monotonic() - start)
    report.show(console, results)
    report.write(chosen.output, results, conditions=conditions)
    say(f"written to {chosen.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
