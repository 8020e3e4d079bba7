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
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pika.exceptions
from rich.console import Console

from compose.demo.broker import VHOST, DemoBroker
from compose.demo.clockwork import LEASE_SECONDS, SCHEDULE, SCHEDULES, Clockwork
from compose.demo.database import create_database
from compose.demo.errors import DemoError
from compose.demo.flights import counts_by_day, draw_charts, write_parquet
from compose.demo.mailbox import Mailbox
from compose.demo.observer import Observer
from compose.demo.operator import Operator, counted
from compose.demo.plan import Kind, Plan
from compose.demo.pool import Pools
from compose.demo.receiver import TEMPERS, Receiver
from compose.demo.scenario import Scenario, State
from compose.demo.summary import print_summary
from compose.demo.verdict import Aftermath, Check, Evidence, checks
from compose.demo.view import LiveView, PlainView, View
from compose.native.errors import StackError
from compose.native.paths import Checkout
from leveret.errors import LeveretError

#: Folders of earlier runs that are kept.
_KEPT_RUNS = 5
#: Settings of the schedulers: nothing is scheduled but what is planned here.
_SCHEDULER = {
    "LEVERET_LOG_FORMAT": "json",
    "LEVERET_SCHEDULES": str(SCHEDULES),
    "LEVERET_SCHEDULER_LEASE": str(LEASE_SECONDS),
    "LEVERET_HOUSEKEEPING": "false",
}
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
        "--timeout", type=float, default=300, help="seconds until it gives up (default 300)"
    )
    return parser.parse_args()


def _run(checkout: Checkout, arguments: argparse.Namespace) -> int:
    state = State(began=time.monotonic())
    console = _console()
    run = f"demo-{secrets.token_hex(3)}"
    home = checkout.root / "build" / "demo"
    folder = _new_folder(home, run)
    broker = DemoBroker(checkout)
    pools = Pools(checkout, folder / "log")
    view = _view(console, state.began, plain=arguments.plain)

    with ExitStack() as stack:
        stack.enter_context(view)
        view.step(f"preparing flights, pictures and the virtual host {VHOST}")
        pools.stop()
        with ThreadPoolExecutor(max_workers=2) as background:
            preparing = background.submit(broker.prepare)
            creating = background.submit(create_database, broker.stack_database)
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
            database = creating.result()
        plan = Plan(
            run=run,
            days=dict(list(flights.items())[: arguments.days]),
            pictures=pictures,
            receivers={name: receiver.url(name) for name in TEMPERS},
        )
        observer = Observer(database, broker.url("admin"), folder / "dead-letters")
        observer.start()
        stack.callback(observer.stop)
        view.step("starting recorder, relay, API, schedulers and workers, and publishing")
        stack.callback(pools.stop)
        environments = {
            role: broker.environment(role, database)
            for role in ("recorder", "relay", "api", "scheduler", "worker", "admin")
        }
        environments["scheduler"] |= _SCHEDULER
        environments["worker"] |= _environment(folder, parquet, mailbox, receiver)
        api = pools.start(environments)
        operator = stack.enter_context(Operator(api, environments["admin"], checkout.root))
        clockwork = stack.enter_context(closing(Clockwork(database, pools)))
        scenario = Scenario(
            plan,
            url=broker.url("publisher"),
            observer=observer,
            pools=pools,
            clockwork=clockwork,
            view=view,
            state=state,
        )
        view.step(
            f"{sum(plan.days.values()):,} flights, {sum(map(plan.count, Kind))} jobs, "
            "some of which go wrong"
        )
        in_time = scenario.run(timeout_seconds=arguments.timeout)
        beats = clockwork.beats(operator.stop_schedule(SCHEDULE))
        aftermath = _operate(operator, receiver, view)
        deaths = pools.deaths()

    found = Evidence(
        plan=plan,
        published=scenario.published,
        book=scenario.book,
        mails=mailbox.subjects,
        deliveries=receiver.deliveries,
        deaths=deaths,
        killed=scenario.killed,
        beats=beats,
        aftermath=aftermath,
    )
    statements = checks(found)
    if not in_time:
        statements.insert(0, _late(len(scenario.unfinished()), arguments.timeout))
    print_summary(console, found=found, statements=statements, state=state, places=_places(folder))
    return 0 if all(statement.holds for statement in statements) else 1


def _late(jobs: int, seconds: float) -> Check:
    return Check(holds=False, text=f"{jobs} jobs have no end after {seconds:g} s")


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


def _view(console: Console, began: float, *, plain: bool) -> LiveView | PlainView:
    """Show it live on a terminal, in lines anywhere else."""
    if plain or not console.is_terminal:
        return PlainView(began)
    return LiveView(console, began, "Leveret: the flights of 2013 out of New York")


def _operate(operator: Operator, receiver: Receiver, view: View) -> Aftermath:
    """Look at what has become of the jobs, replay what can be mended, and have all audited."""
    states, groups = operator.states(), operator.groups()
    view.step(f"the API says: {counted(states)}; {len(groups)} groups of dead letters")
    replay: dict[str, Any] = {}
    for group in groups:
        if group["actor"] == "webhook.deliver":
            receiver.mend("closed")
            view.step(f"the receiver is mended; replaying group {group['fingerprint'][:8]}")
            replay = operator.replay(group["fingerprint"])
            break
    view.step("auditing, and draining the workers")
    return Aftermath(states=states, groups=groups, replay=replay, audit=operator.audit())


def _places(folder: Path) -> list[tuple[str, Path | str]]:
    """Return where things lie, for a person in the current directory."""
    shown = _shown(folder)
    return [
        ("reports", shown / "storage" / "reports"),
        ("pictures", shown / "storage" / "pictures"),
        ("mails", shown / "mails"),
        ("webhooks", shown / "webhooks.jsonl"),
        ("dead letters", shown / "dead-letters"),
        ("logs", shown / "log"),
    ]


def _environment(
    folder: Path, parquet: Path, mailbox: Mailbox, receiver: Receiver
) -> dict[str, str]:
    """Return the settings that the actors of the demonstration need."""
    return {
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
