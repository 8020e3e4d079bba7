"""What a person sees meanwhile: a live view on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from compose.demo.plan import Kind

if TYPE_CHECKING:
    from compose.demo.scenario import State

__all__ = ["LiveView", "PlainView", "View"]

#: What the queues are called here, in the order of their place in the view.
_QUEUES = ("critical", "default", "bulk", "scheduled", "quarantine")
_EVENTS = 8
_LINE_SECONDS = 2.0
_BAR_WIDTH = 32


class View(Protocol):
    """Where the run shows itself."""

    def step(self, text: str) -> None:
        """Say what begins now."""
        ...

    def event(self, text: str) -> None:
        """Tell something that has happened."""
        ...

    def show(self, state: State) -> None:
        """Show how far everything is."""
        ...


class PlainView:
    """A line for each event, and one for the progress every two seconds."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""

    def step(self, text: str) -> None:
        """Say what begins now."""
        self._print(text)

    def event(self, text: str) -> None:
        """Tell something that has happened."""
        self._print(text)

    def show(self, state: State) -> None:
        """Show how far everything is, if the last line is long enough ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LINE_SECONDS
        parts = [
            f"{kind.word} {count.succeeded + count.dead}/{count.total}"
            for kind, count in state.counts.items()
        ]
        waiting = sum(state.waiting.values())
        self._print(f"{', '.join(parts)}; {waiting} wait, {state.in_wheel} for a retry")

    def _print(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:5.1f} s  {text}", flush=True)


class LiveView:
    """Bars, queues and the latest events, in place."""

    def __init__(self, console: Console, began: float, title: str) -> None:
        self._began = began
        self._title = title
        self._step = ""
        self._state: State | None = None
        self._events: deque[tuple[float, str]] = deque(maxlen=_EVENTS)
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def step(self, text: str) -> None:
        """Say what begins now."""
        self._step = text

    def event(self, text: str) -> None:
        """Tell something that has happened."""
        self._events.append((time.monotonic() - self._began, text))

    def show(self, state: State) -> None:
        """Show how far everything is."""
        self._state = state

    def _render(self) -> Group:
        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        head.add_row(
            Text(self._title, style="bold"),
            Text(f"{time.monotonic() - self._began:.1f} s", style="dim"),
        )
        parts: list[RenderableType] = [head, Text(self._step, style="dim")]
        if self._state is not None:
            parts += [Text(), _bars(self._state), Text(), _queues(self._state)]
        parts += [Text(), self._latest()]
        return Group(*(Padding(part, (0, 2)) for part in parts))

    def _latest(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", style="dim", width=7, no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for seconds, text in self._events:
            table.add_row(f"{seconds:.1f} s", text)
        for _ in range(_EVENTS - len(self._events)):
            table.add_row("", "")
        return table


def _bars(state: State) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(width=_BAR_WIDTH)
    table.add_column(justify="right", no_wrap=True, min_width=len("365 / 365"))
    table.add_column(no_wrap=True)
    for kind in Kind:
        count = state.counts[kind]
        done = count.succeeded + count.dead
        finished = "yellow" if count.dead else "green"
        bar = ProgressBar(
            total=count.total,
            completed=done,
            width=_BAR_WIDTH,
            complete_style="cyan",
            finished_style=finished,
        )
        notes = []
        if count.retries:
            notes.append(f"{count.retries} retried")
        if count.dead:
            notes.append(f"{count.dead} dead")
        table.add_row(
            kind.label, bar, f"{done} / {count.total}", Text(", ".join(notes), style="yellow")
        )
    return table


def _queues(state: State) -> Table:
    table = Table.grid(padding=(0, 3))
    cells = [(queue, state.waiting.get(queue, 0)) for queue in _QUEUES]
    cells.append(("for a retry", state.in_wheel))
    for _ in range(len(cells) + 1):
        table.add_column(justify="right", no_wrap=True, min_width=5)
    table.add_row(Text("waiting in", style="dim"), *(Text(name, style="dim") for name, _ in cells))
    table.add_row("", *(Text(str(n), style="bold" if n else "dim") for _, n in cells))
    return table
