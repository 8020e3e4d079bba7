"""`python -m compose.demo`: the main job on real input; `make demo` starts the stack before it.

The exit status is 0 when everything adds up, 1 when it does not, 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pika.exceptions
from rich.console import Console

from compose.demo.broker import VHOST, DemoBroker
from compose.demo.errors import DemoError
from compose.demo.flights import counts_by_day, draw_charts, write_parquet
from compose.demo.mailbox import Mailbox
from compose.demo.plan import Kind, Plan
from compose.demo.pool import Pools
from compose.demo.receiver import TEMPERS, Receiver
from compose.demo.recorder import Recorder
from compose.demo.scenario import Scenario, State
from compose.demo.summary import print_summary
from compose.demo.verdict import Check, Evidence, checks
from compose.demo.view import LiveView, PlainView
from compose.native.errors import StackError
from compose.native.paths import Checkout
from leveret.errors import LeveretError

#: Folders of earlier runs that are kept.
_KEPT_RUNS = 5
_WIDTH_WITHOUT_TERMINAL = 120


def main() -> int:
    """Run the demonstration; return its exit status."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    checkout = Checkout.here()
    try:
        with _alone(checkout):
            return _run(checkout, arguments)
    except (DemoError, StackError, LeveretError, pika.exceptions.AMQPError) as error:
        print(f"demo: {str(error) or repr(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: broken off; its workers have been ended", file=sys.stderr)
        return 130


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    def days(text: str) -> int:
        number = int(text)
        if not 1 <= number <= 365:
            raise argparse.ArgumentTypeError(f"{number} is not between 1 and 365")
        return number

    parser = argparse.ArgumentParser(prog="python -m compose.demo", description=main.__doc__)
    parser.add_argument(
        "--days", type=days, default=365, help="days of 2013, from January 1 on (default: all)"
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds until it gives up (default 120)"
    )
    return parser.parse_args()


def _run(checkout: Checkout, arguments: argparse.Namespace) -> int:
    state = State(began=time.monotonic())
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    run = f"demo-{secrets.token_hex(3)}"
    home = checkout.root / "build" / "demo"
    folder = _new_folder(home, run)
    broker = DemoBroker(checkout)
    pools = Pools(checkout, folder / "log")
    is_live = console.is_terminal and not arguments.plain
    title = "Leveret: the flights of 2013 out of New York"
    view = LiveView(console, state.began, title) if is_live else PlainView(state.began)

    with ExitStack() as stack:
        stack.enter_context(view)
        view.step(f"preparing flights, pictures and the virtual host {VHOST}")
        pools.stop()
        with ThreadPoolExecutor(max_workers=1) as background:
            preparing = background.submit(broker.prepare)
            parquet = home / "flights.parquet"
            write_parquet(parquet)
            flights = counts_by_day(parquet)
            pictures = draw_charts(flights, folder / "storage" / "charts")
            mailbox = Mailbox(folder / "mails", folder)
            mailbox.start()
            stack.callback(mailbox.stop)
            receiver = Receiver(folder / "webhooks.jsonl")
            receiver.start()
            stack.callback(receiver.stop)
            preparing.result()
        plan = Plan(
            run=run,
            days=dict(list(flights.items())[: arguments.days]),
            pictures=pictures,
            receivers={name: receiver.url(name) for name in TEMPERS},
        )
        recorder = Recorder(broker.url("recorder"), folder / "dead-letters")
        recorder.start()
        stack.callback(recorder.stop)
        view.step("starting workers, and publishing")
        stack.callback(pools.stop)
        pools.start(_environment(broker, folder, parquet, mailbox, receiver))
        scenario = Scenario(
            plan,
            url=broker.url("publisher"),
            recorder=recorder,
            pools=pools,
            view=view,
            state=state,
        )
        view.step(
            f"{sum(plan.days.values()):,} flights, {sum(map(plan.count, Kind))} jobs, "
            "some of which go wrong"
        )
        in_time = scenario.run(timeout_seconds=arguments.timeout)
        deaths = pools.deaths()
        view.step("draining the workers")

    found = Evidence(
        plan=plan,
        published=scenario.published,
        book=scenario.book,
        mails=mailbox.subjects,
        deliveries=receiver.deliveries,
        deaths=deaths,
        killed=scenario.killed,
    )
    statements = checks(found)
    if not in_time:
        late = f"{len(scenario.unfinished())} jobs have no end after {arguments.timeout:g} s"
        statements.insert(0, Check(holds=False, text=late))
    shown = _shown(folder)
    places = [
        ("reports", shown / "storage" / "reports"),
        ("pictures", shown / "storage" / "pictures"),
        ("mails", shown / "mails"),
        ("webhooks", shown / "webhooks.jsonl"),
        ("dead letters", shown / "dead-letters"),
        ("workers' logs", shown / "log"),
    ]
    print_summary(console, found=found, statements=statements, state=state, places=places)
    return 0 if all(statement.holds for statement in statements) else 1


def _environment(
    broker: DemoBroker, folder: Path, parquet: Path, mailbox: Mailbox, receiver: Receiver
) -> dict[str, str]:
    """Return the settings of the demonstration's workers."""
    return {
        **broker.environment("worker"),
        "LEVERET_LOG_FORMAT": "json",
        "LEVERET_STORAGE_URL": str(folder / "storage"),
        "LEVERET_SOURCE_FLIGHTS_URL": str(parquet),
        "LEVERET_QUERIES": str(Path(__file__).parent / "queries"),
        "LEVERET_DUCKDB_THREADS": "1",
        "LEVERET_SMTP_URL": mailbox.url,
        "LEVERET_SMTP_FROM": "reports@airports.example",
        "LEVERET_SMTP_CA_FILE": str(mailbox.ca_file),
        "LEVERET_WEBHOOK_ALLOW_PRIVATE": "1",
        "LEVERET_WEBHOOK_SECRET": receiver.secret,
    }


@contextmanager
def _alone(checkout: Checkout) -> Iterator[None]:
    """Keep a second demonstration of this checkout from running at the same time."""
    checkout.stack.mkdir(exist_ok=True)
    with (checkout.stack / "demo.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(
                "another demonstration of this checkout is running: wait until it has ended"
            ) from None
        yield


def _new_folder(home: Path, run: str) -> Path:
    """Make the folder of this run, and remove those of the oldest runs."""
    runs = home / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    earlier = sorted(runs.glob("demo-*"), key=lambda path: path.stat().st_mtime)
    for old in earlier[: -(_KEPT_RUNS - 1)]:
        shutil.rmtree(old)
    folder = runs / run
    folder.mkdir()
    latest = home / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(folder, target_is_directory=True)
    return folder


def _shown(folder: Path) -> Path:
    """Return the folder as short as a person in the current directory can use it."""
    here = Path.cwd()
    return Path(os.path.relpath(folder, here)) if folder.is_relative_to(here) else folder


if __name__ == "__main__":
    sys.exit(main())
