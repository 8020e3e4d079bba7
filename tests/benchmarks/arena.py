"""Where scenarios run: one broker, a virtual host for each contestant, and a few verbs."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pika
import pika.exceptions

from tests.benchmarks.board import BOARD_VARIABLE, Board
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.database import Database
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.node import Node
from tests.benchmarks.workers import Workers, clean_environment

ROOT = Path(__file__).resolve().parents[2]

_POLL_SECONDS = 0.02
_SETTLE_SECONDS = 20.0
_ORDER_SECONDS = 120.0


class Arena:
    """One node and everything that happens on it; used from one thread."""

    def __init__(self, node: Node, database: Database, *, logs: Path) -> None:
        self._node = node
        self._database = database
        self._databases: dict[str, str] = {}
        self._logs = logs
        self._prepared: set[str] = set()
        logs.mkdir(parents=True, exist_ok=True)

    def prepare(self, contestant: Contestant) -> None:
        """Give the contestant an empty virtual host; make it and its topology the first time."""
        vhost = _vhost(contestant)
        if contestant.name in self._prepared:
            self._purge(vhost)
            return
        self._node.create_vhost(vhost)
        for command in contestant.prepare:
            self._run(contestant, command)
        self._prepared.add(contestant.name)

    def new_database(self, contestant: Contestant) -> str:
        """Give the contestant a new database with its tables; return its URL."""
        name = f"bench_{contestant.name.replace('-', '_')}"
        self._databases[contestant.name] = self._database.create(name)
        for command in contestant.prepare_database:
            self._run(contestant, command)
        return self._databases[contestant.name]

    def beside(self, contestant: Contestant) -> Workers:
        """Return what runs beside the contestant's workers, to be started by entering it."""
        return Workers(
            contestant.beside,
            environment=self._environment(contestant),
            folder=ROOT,
            log=self._logs / f"{contestant.name}-beside.log",
        )

    @contextlib.contextmanager
    def board(self, size: int) -> Iterator[Board]:
        """Lend an empty board with `size` places."""
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(
            prefix="leveret-board-", dir=memory if memory.is_dir() else None
        ) as folder:
            yield Board.create(Path(folder) / "board", size)

    def drive(
        self,
        contestant: Contestant,
        operation: str,
        arguments: Mapping[str, object],
    ) -> Any:
        """Have the contestant's client carry out one operation in a process of its own."""
        order = json.dumps({"operation": operation, "arguments": arguments})
        printed = self._run(contestant, ("tests.benchmarks.driver", contestant.module), order)
        return json.loads(printed.splitlines()[-1])

    def fill(self, contestant: Contestant, actor: str, jobs: range) -> None:
        """Put jobs into the queue in the contestant's fastest way; see that they are there."""
        before = self.ready(contestant)
        self.drive(
            contestant,
            "fill",
            {
                "actor": actor,
                "first": jobs.start,
                "jobs": len(jobs),
                "confirms": not contestant.can(Ability.UNCONFIRMED),
                "pipelined": contestant.can(Ability.PIPELINED),
            },
        )
        self.expect_ready(contestant, before + len(jobs))

    def workers(self, contestant: Contestant, board: Board, *, purpose: str) -> Workers:
        """Return the contestant's workers, to be started by entering them."""
        return Workers(
            contestant.workers,
            environment=self._environment(contestant, board),
            folder=ROOT,
            log=self._logs / f"{contestant.name}-{purpose}.log",
        )

    @contextlib.contextmanager
    def drained(
        self,
        contestant: Contestant,
        actor: str,
        jobs: range,
        *,
        purpose: str,
        runs: int = 1,
        seconds: float = 180.0,
    ) -> Iterator[Board]:
        """Fill the queue while no worker runs, then have workers run all; lend their board.

        The workers are still there meanwhile. Raises when a job has not run ``runs`` times within
        ``seconds``, or has run more often by the time when the workers have stopped.
        """
        what = f"{contestant.name} {purpose}"
        with self.board(len(jobs)) as board:
            self.fill(contestant, actor, jobs)
            with self.workers(contestant, board, purpose=purpose) as workers:
                self.wait_for(board, jobs, workers, runs=runs, seconds=seconds, what=what)
                yield board
            expect_exactly(board, jobs, runs=runs, what=what)

    @contextlib.contextmanager
    def warm(
        self, contestant: Contestant, warm_up: range, jobs: range, *, purpose: str
    ) -> Iterator[tuple[Board, Workers]]:
        """Lend workers that have run a few jobs and wait, and the board for these and ``jobs``."""
        with (
            self.board(jobs.stop) as board,
            self.workers(contestant, board, purpose=purpose) as workers,
        ):
            self.warm_up(contestant, board, warm_up, workers)
            yield board, workers

    def waits(
        self,
        board: Board,
        jobs: range,
        workers: Workers,
        *,
        began: Sequence[int],
        what: str,
    ) -> list[float]:
        """Return how many milliseconds after ``began`` each of ``jobs`` started; each must once."""
        self.wait_for(board, jobs, workers, runs=1, seconds=30, what=what)
        expect_exactly(board, jobs, runs=1, what=what)
        started = board.first(jobs)
        return [(start - begin) / 1e6 for begin, start in zip(began, started, strict=True)]

    def warm_up(self, contestant: Contestant, board: Board, jobs: range, workers: Workers) -> None:
        """Publish a few jobs to running workers and wait for them: now all are awake."""
        self.pace(contestant, jobs, low=0.0, high=0.005, seed=0)
        self.wait_for(board, jobs, workers, runs=1, seconds=60, what=f"{contestant.name} warm-up")

    def pace(
        self, contestant: Contestant, jobs: range, *, low: float, high: float, seed: int
    ) -> list[int]:
        """Publish one by one with random pauses in seconds; return when each was handed over."""
        arguments = {
            "first": jobs.start,
            "jobs": len(jobs),
            "low": low,
            "high": high,
            "seed": seed,
            "confirms": not contestant.can(Ability.UNCONFIRMED),
        }
        sent: list[int] = self.drive(contestant, "pace", arguments)
        return sent

    def finished(
        self, board: Board, jobs: range, workers: Workers, *, runs: int, seconds: float
    ) -> bool:
        """Wait until each of `jobs` ran at least `runs` times; tell whether it came to that."""
        enough = bytes(range(runs, 256))

        def all_ran() -> bool:
            workers.check()
            return not board.runs(jobs).translate(None, delete=enough)

        return _eventually(all_ran, seconds)

    def wait_for(
        self, board: Board, jobs: range, workers: Workers, *, runs: int, seconds: float, what: str
    ) -> None:
        """Wait until each of `jobs` ran `runs` times; raise when the seconds are over."""
        if not self.finished(board, jobs, workers, runs=runs, seconds=seconds):
            done = sum(count >= runs for count in board.runs(jobs))
            raise BenchmarkError(
                f"{what}: only {done} of {len(jobs)} jobs ran {runs} time(s) within "
                f"{seconds:.0f} s; the workers said:\n{workers.tail()}"
            )

    def ready(self, contestant: Contestant) -> int:
        """Return how many messages wait in the contestant's work queue; 0 if there is none."""
        connection = pika.BlockingConnection(
            pika.URLParameters(self._node.amqp_url(_vhost(contestant)))
        )
        try:
            declared = connection.channel().queue_declare(contestant.queue, passive=True)
            return int(declared.method.message_count)
        except pika.exceptions.ChannelClosedByBroker:
            return 0
        finally:
            connection.close()

    def expect_ready(self, contestant: Contestant, count: int) -> None:
        """Wait until the work queue holds exactly `count` messages; raise if it does not."""
        if not _eventually(lambda: self.ready(contestant) == count, _SETTLE_SECONDS):
            raise BenchmarkError(
                f"{contestant.name} published {count} messages, but its queue "
                f"{contestant.queue!r} holds {self.ready(contestant)}"
            )

    def _run(self, contestant: Contestant, command: Sequence[str], order: str = "") -> str:
        shown = f"{contestant.name}: `python -m {' '.join(command)}`"
        try:
            done = subprocess.run(
                [sys.executable, "-m", *command],
                input=order,
                env=self._environment(contestant),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=_ORDER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{shown} did not end within {_ORDER_SECONDS:.0f} s") from error
        if done.returncode:
            raise BenchmarkError(
                f"{shown} ended with status {done.returncode}; its order was {order[:200]!r}, and "
                f"it said:\n{(done.stderr or done.stdout)[-3000:]}"
            )
        return done.stdout

    def _environment(self, contestant: Contestant, board: Board | None = None) -> dict[str, str]:
        amqp_url = self._node.amqp_url(_vhost(contestant))
        urls: Mapping[str, str] = {
            "amqp_url": amqp_url,
            "management_url": self._node.management_url,
            "database_url": self._databases.get(contestant.name, ""),
        }
        own = {name: text.format_map(urls) for name, text in contestant.environment.items()}
        shared = {BOARD_VARIABLE: str(board.path)} if board else {}
        return {
            **clean_environment(),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "BENCH_AMQP_URL": amqp_url,
            **own,
            **shared,
        }

    def _purge(self, vhost: str) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._node.amqp_url(vhost)))
        try:
            for queue in self._node.queues(vhost):
                # A queue that was its worker's own may have gone with it.
                with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                    connection.channel().queue_purge(queue)
        finally:
            connection.close()


def expect_exactly(board: Board, jobs: range, *, runs: int, what: str) -> None:
    """Raise unless each of `jobs` ran exactly `runs` times."""
    counts = board.runs(jobs)
    if counts != bytes([runs]) * len(jobs):
        fewer, more = sum(c < runs for c in counts), sum(c > runs for c in counts)
        raise BenchmarkError(
            f"{what}: of {len(jobs)} jobs that should have run {runs} time(s) each, "
            f"{fewer} ran fewer and {more} more; its figures mean nothing"
        )


def _vhost(contestant: Contestant) -> str:
    return f"bench-{contestant.name}"


def _eventually(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
