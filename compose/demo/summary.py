"""What stands on the terminal at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compose.demo.plan import Kind

if TYPE_CHECKING:
    from compose.demo.scenario import State
    from compose.demo.verdict import Check, Evidence

__all__ = ["print_summary"]


def print_summary(
    console: Console,
    *,
    found: Evidence,
    statements: Sequence[Check],
    state: State,
    places: Sequence[tuple[str, Path | str]],
) -> None:
    """Print the table of the jobs, the dead letters, what was checked, and where things lie."""
    for part in (_jobs(found), _groups(found), _statements(statements), None, _places(places)):
        console.print() if part is None else console.print(Padding(part, (0, 2), expand=False))
    console.print()
    good = all(statement.holds for statement in statements)
    verdict = Text("Everything adds up" if good else "It does not add up")
    verdict.stylize("bold green" if good else "bold red")
    verdict.append(f", after {state.seconds:.1f} s.", style="not bold")
    console.print(Padding(verdict, (0, 2), expand=False))


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))


def _jobs(found: Evidence) -> Table:
    table = _table()
    table.add_column("job", no_wrap=True)
    table.add_column("published by", no_wrap=True)
    for name in ("published", "succeeded", "retried", "dead"):
        table.add_column(name, justify="right", no_wrap=True)
    total = [0, 0, 0, 0]
    for kind in Kind:
        stories = [found.book[job] for job, p in found.published.items() if p.kind is kind]
        row = [
            len(stories),
            sum(story.outcome == "succeeded" for story in stories),
            sum(bool(story.retries) for story in stories),
            sum(story.is_dead for story in stories),
        ]
        total = [a + b for a, b in zip(total, row, strict=True)]
        table.add_row(kind.label, kind.client, *(str(n) if n else "·" for n in row))
    table.add_section()
    table.add_row("all", "", *map(str, total), style="bold")
    return table


def _groups(found: Evidence) -> Table:
    table = _table()
    table.add_column("dead letters", no_wrap=True)
    table.add_column("actor", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    table.add_column("number", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold")
    replayed = found.aftermath.replay.get("which", {}).get("fingerprint")
    for group in found.aftermath.groups:
        mark = " ↻" if group["fingerprint"] == replayed else ""
        table.add_row(
            f"{group['fingerprint'][:8]}{mark}",
            group["actor"] or "·",
            Text(group["reason"], style="yellow"),
            str(group["open"]),
            Text(_brief(group["error"] or "")),
        )
    return table


def _brief(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= 110 else f"{line[:109]}…"


def _statements(statements: Sequence[Check]) -> Table:
    table = Table.grid(padding=(0, 1))
    for statement in statements:
        mark = Text("✓", style="green") if statement.holds else Text("✗", style="bold red")
        table.add_row(mark, Text(statement.text))
    return table


def _places(places: Sequence[tuple[str, Path | str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, place in places:
        table.add_row(name, str(place))
    return table
