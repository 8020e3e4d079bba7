"""The command line of the worker pool."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

from leveret.errors import ConfigurationError
from leveret.settings import Settings

__all__ = ["Options", "parse"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the launcher was asked for."""

    queues: tuple[str, ...]
    threads: int
    processes: int
    prefetch: int
    grace: float
    http_host: str
    http_port: int


def parse(arguments: Sequence[str], settings: Settings) -> Options:
    """Read the command line; raises `ConfigurationError` for queues that are not configured."""
    parser = argparse.ArgumentParser(
        prog="python -m services.worker",
        description="Run the jobs of some queues.",
        epilog="Everything else is set by LEVERET_… variables; `leveret settings` shows them.",
    )
    parser.add_argument(
        "--queues",
        default=",".join(settings.queues),
        help="work queues, separated by commas (default: all of LEVERET_QUEUES)",
    )
    parser.add_argument(
        "--threads", type=_at_least(1), default=8, help="jobs at a time in each process (default 8)"
    )
    parser.add_argument(
        "--processes",
        type=_at_least(1),
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        help="processes (default: the processors there are)",
    )
    parser.add_argument(
        "--prefetch",
        type=_at_least(0),
        default=settings.prefetch,
        help="deliveries that a process holds of each queue (default 0: follows their duration)",
    )
    parser.add_argument(
        "--grace",
        type=_at_least_seconds,
        default=30.0,
        help="seconds that running jobs have to end on SIGTERM (default 30)",
    )
    parser.add_argument(
        "--http-host",
        default=settings.http_host,
        help="where /livez, /readyz and /metrics listen (default %(default)s)",
    )
    parser.add_argument(
        "--http-port",
        type=_at_least(0),
        default=settings.http_port,
        help="their port (default %(default)s; 0 is none)",
    )
    found = parser.parse_args(arguments)
    queues = tuple(word.strip() for word in found.queues.split(",") if word.strip())
    for queue in queues:
        if queue not in settings.queues:
            raise ConfigurationError(
                f"--queues names {queue!r}, which is not one of LEVERET_QUEUES "
                f"({','.join(settings.queues)})"
            )
    if not queues or len(set(queues)) != len(queues):
        raise ConfigurationError(
            f"--queues names at least one queue, and each once, not {found.queues!r}"
        )
    return Options(
        queues=queues,
        threads=found.threads,
        processes=found.processes,
        prefetch=found.prefetch,
        grace=found.grace,
        http_host=found.http_host,
        http_port=found.http_port,
    )


def _at_least(low: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - argparse's own shape
    def read(text: str) -> int:
        number = int(text)
        if number < low:
            raise argparse.ArgumentTypeError(f"{number} is less than {low}")
        return number

    return read


def _at_least_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return seconds
