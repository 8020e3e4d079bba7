"""The pages of docs/runbooks, executed: what a test does with an induced fault and a page.

A page is a list of sections (``## LeveretRetryStorm``), each with fenced blocks. Those in ``bash``,
``sql`` and ``promql`` are what somebody on call would run, and are run here for real: ``leveret``
and whatever else is on the path by a shell in a subprocess, ``curl`` as the same request by httpx
(not every machine has curl), SQL by psycopg, PromQL by a Prometheus. So are the lines behind ``$``
in ``console``, with what they had printed below; the headings of that have to be those of today.
Other blocks (``text``, …) show what was seen, and are not run.

Names in capitals (`PLACEHOLDERS`) stand for what differs from case to case: the test fills them in,
and in ``console`` ids of jobs, groups and dead letters as well. A command of a deployment, as
``kubectl`` in ``sh``, needs a stand-in: a function that does to the test's processes what the
command would do to the cluster's. ::

    PAGE = Page("jobs")

    @PAGE.walks("LeveretRetryStorm")
    def test_a_retry_storm_is_found_and_ended(system):
        with PAGE.section("LeveretRetryStorm", Console(system.environment("admin"))) as section:
            errors, shown = section.run(JOB=job_id)  # the next block; an output for each command
            ...

    def test_the_whole_page_is_walked_through():
        assert PAGE.left_out() == []

A section that is left with blocks that were not run fails its test, and `Page.left_out` names the
sections that no test of the module walks through: so no command of a page is without its proof.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import httpx
import psycopg

from tests.support.forkedcommands import Commands
from tests.support.pages import ROOT
from tests.support.processes import bare_environment

F = TypeVar("F", bound=Callable[..., object])

#: What differs from case to case. A page may use no other word in this way.
PLACEHOLDERS = frozenset(
    {
        *("ACTOR", "GROUP", "HOST", "JOB", "LETTER", "NAME", "PID", "QUEUE", "REPLAY", "TABLE"),
        *("TIME", "WORKER"),
    }
)
#: Languages of blocks that are run.
RUN = frozenset({"bash", "console", "promql", "sh", "sql"})
_FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_WORD = re.compile(r"\b[A-Z]+\b")
#: There, GROUP and TABLE are words of the language unless they are quoted.
_IN_SQL = re.compile(r"\b(?!GROUP|TABLE)[A-Z]+\b|(?<=')[A-Z]+\b")
_IN_CONSOLE = {
    "JOB": re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"),
    "GROUP": re.compile(r"(?<=--group )[0-9a-f]+"),
    "LETTER": re.compile(r"(?<=dead show )\d+|(?<=dead replay )\d+"),
}
#: What a shell has to read.
_SHELL = re.compile(r"[|<>&;$`]")
_NUMBERED = re.compile(r"\S*\d\S*")
_VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]*)\}?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and where it stands."""

    section: str
    #: Of the page, from 1.
    line: int
    language: str
    text: str

    def commands(self) -> list[str]:
        """Return its commands: a line each in ``bash``, the whole block in ``sql``."""
        if self.language == "console":
            return [command for command, _ in self.recorded()]
        if self.language in ("sql", "promql"):
            return [self.text.strip()]
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if shlex.split(line, comments=True)]

    def recorded(self) -> list[tuple[str, str]]:
        """Return the commands of a ``console``, and what each had printed."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                command = line.removeprefix("$ ")
                for name, pattern in _IN_CONSOLE.items():
                    command = pattern.sub(name, command)
                found.append((command, []))
            else:
                found[-1][1].append(line)
        return [(command, "\n".join(lines).strip()) for command, lines in found]

    def filled(self, command: str, values: Mapping[str, str]) -> str:
        """Return a command with its placeholders filled in; raises when one is left."""
        unknown = set(values) - PLACEHOLDERS
        assert not unknown, f"{sorted(unknown)} are no placeholders of runbooks"
        word = _IN_SQL if self.language == "sql" else _WORD
        missing = (set(word.findall(command)) & PLACEHOLDERS) - set(values)
        assert not missing, f"line {self.line}: nothing is given for {sorted(missing)}: {command}"
        return word.sub(lambda found: values.get(found[0], found[0]), command)


class Queryable(Protocol):
    """A Prometheus, as far as it is asked here."""

    def query(self, expr: str) -> Any:
        """Return the result of an expression."""


class Said(str):
    """What a command has printed, and its exit status."""

    __slots__ = ("status",)
    status: int

    def __new__(cls, output: str, status: int = 0) -> Self:
        """Make it of what was printed."""
        said = super().__new__(cls, output)
        said.status = status
        return said

    def row(self, *words: str) -> dict[str, str]:
        """Return the one row of the printed table that has these words, by its columns."""
        rows = [row for row in self.table() if set(words) <= {*" ".join(row.values()).split()}]
        assert len(rows) == 1, f"{len(rows)} rows have {words}:\n{self}"
        return rows[0]

    def table(self) -> list[dict[str, str]]:
        """Return the rows of the printed table, by the names of its columns."""
        lines = self.splitlines()
        if not lines:
            return []
        starts = [found.start() for found in re.finditer(r"(?<!\S)\S+(?: \S+)*", lines[0])]
        names = [lines[0][a:b].strip() for a, b in _spans(starts)]
        return [
            {name: line[a:b].strip() for name, (a, b) in zip(names, _spans(starts), strict=True)}
            for line in lines[1:]
            if line.strip()
        ]


def _spans(starts: Sequence[int]) -> list[tuple[int, int | None]]:
    return list(zip(starts, [*starts[1:], None], strict=True))


@dataclass(frozen=True, kw_only=True)
class Console:
    """Where the commands of a page are run: the environment of whoever is on call."""

    #: Settings, ``LEVERET_…`` among them, on top of the shell's without what it has for Leveret.
    environment: Mapping[str, str]
    #: What runs ``leveret`` faster than a shell.
    commands: Commands | None = None
    prometheus: Queryable | None = None
    #: What does the work of a program that is not here, by its name: gets the words behind it.
    stand_ins: Mapping[str, Callable[[list[str]], str]] = field(default_factory=dict)
    #: Seconds that a command may take.
    timeout: float = 100.0

    def run(self, block: Block, command: str) -> Any:
        """Run a command; SQL returns its rows, PromQL its result, anything else what it says."""
        match block.language:
            case "sql":
                return self.sql(command)
            case "promql":
                assert self.prometheus is not None, f"line {block.line} needs a Prometheus"
                return self.prometheus.query(command)
        program, *words = shlex.split(self._expanded(command), comments=True)
        if program in self.stand_ins:
            return Said(self.stand_ins[program](words))
        return self._curl(words) if program == "curl" else self.shell(command)

    def shell(self, command: str) -> Said:
        """Run a command as a shell does; ``leveret`` alone is spared its imports."""
        settings = {**bare_environment(), **self.environment}
        program, *words = shlex.split(command, comments=True)
        if self.commands and program == "leveret" and not _SHELL.search(command.partition("#")[0]):
            status, said = self.commands.run(words, settings, timeout=self.timeout)
            return Said(said, status)
        settings["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{settings['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            env=settings,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.timeout,
            check=False,
        )
        return Said(done.stdout + done.stderr, done.returncode)

    def sql(self, statement: str) -> list[Any]:
        """Run a statement in the database of the environment; return its rows."""
        url = self.environment["LEVERET_DATABASE_URL"]
        with psycopg.connect(url, autocommit=True, connect_timeout=20) as connection:
            cursor = connection.execute(statement.encode())
            return [] if cursor.description is None else cursor.fetchall()

    def _expanded(self, command: str) -> str:
        return _VARIABLE.sub(lambda name: self.environment.get(name[1], ""), command)

    def _curl(self, words: list[str]) -> Said:
        """Send what curl would send, as far as pages use it."""
        method, headers, body, url = None, {}, None, ""
        rest = iter(words)
        for word in rest:
            match word:
                case "-X":
                    method = next(rest)
                case "-H":
                    name, _, value = next(rest).partition(":")
                    headers[name] = value.strip()
                case "-d" | "--data" | "--json":
                    body = next(rest)
                    if word == "--json":
                        headers["Content-Type"] = "application/json"
                case "-s" | "-S" | "-f" | "-sS" | "-fsS":
                    pass
                case _:
                    assert not word.startswith("-"), f"no test knows curl {word}"
                    url = word
        method = method or ("GET" if body is None else "POST")
        try:
            answer = httpx.request(
                method, url, headers=headers, content=body, timeout=self.timeout, trust_env=False
            )
        except httpx.TransportError as error:
            return Said(f"curl: (7) {error}", 7)
        return Said(answer.text, 0 if answer.is_success else 22)


def _heading(output: str) -> str:
    """Return the first line that was printed, without what differs from time to time."""
    first = next((line for line in output.splitlines() if line.strip()), "")
    return " ".join(_NUMBERED.sub("#", first).split())


class Section:
    """A section of a page while a test walks through it."""

    def __init__(self, name: str, blocks: Sequence[Block], console: Console) -> None:
        self.name = name
        self.console = console
        self._blocks = list(blocks)

    def run(self, *, may_fail: Sequence[str] = (), **values: object) -> list[Any]:
        """Run the next block; return what each of its commands gave.

        A command whose exit status is not 0 fails the test, unless it begins as one of
        ``may_fail``. ``values`` are the placeholders'.
        """
        assert self._blocks, f"{self.name} has no more blocks"
        block = self._blocks.pop(0)
        given = {name: str(value) for name, value in values.items()}
        answers: list[Any] = []
        recorded = dict(block.recorded()) if block.language == "console" else {}
        for command in block.commands():
            filled = block.filled(command, given)
            answer = self.console.run(block, filled)
            print(f"$ {filled}\n{answer}")
            if isinstance(answer, Said) and not filled.startswith(tuple(may_fail)):
                assert answer.status == 0, f"{filled} ended with {answer.status}:\n{answer}"
            if recorded.get(command):
                assert _heading(answer) == _heading(recorded[command]), f"line {block.line}"
            answers.append(answer)
        return answers

    def next(self, **values: object) -> str:
        """Return the next block, filled in, without running it."""
        given = {name: str(value) for name, value in values.items()}
        return self._blocks[0].filled(self._blocks[0].text, given)

    def left(self) -> list[Block]:
        """Return the blocks that were not run yet."""
        return self._blocks


class Page:
    """A page of docs/runbooks, and which of its sections have a test."""

    def __init__(self, name: str) -> None:
        self.path = ROOT / "docs" / "runbooks" / f"{name}.md"
        self._walked: set[str] = set()

    def blocks(self) -> list[Block]:
        """Return the blocks that are to be run, in the order of the page."""
        return [block for block in _blocks(self.path.read_text()) if block.language in RUN]

    def walks(self, *sections: str) -> Callable[[F], F]:
        """Mark a test as one that walks through these sections."""
        known = {block.section for block in self.blocks()}
        assert set(sections) <= known, f"{self.path.name} has nothing to run in {sections}"
        self._walked.update(sections)
        return lambda test: test

    def left_out(self) -> list[str]:
        """Return the sections with something to run that no test walks through."""
        return sorted({block.section for block in self.blocks()} - self._walked)

    @contextmanager
    def section(self, name: str, console: Console) -> Iterator[Section]:
        """Walk through a section, whose name is ``""`` in front of the first one."""
        assert name in self._walked, f"mark the test: @PAGE.walks({name!r})"
        walked = Section(name, [b for b in self.blocks() if b.section == name], console)
        yield walked
        left = [f"line {block.line}: {block.text}" for block in walked.left()]
        assert not left, f"{self.path.name}, {name}: not run:\n{''.join(left)}"


def _blocks(text: str) -> Iterator[Block]:
    headings = [
        (found.start(), found[1]) for found in re.finditer(r"^## (.+)$", text, re.MULTILINE)
    ]
    for fence in _FENCE.finditer(text):
        above = [name for start, name in headings if start < fence.start()]
        indent = len(fence[1])
        lines = [line[indent:] for line in fence[3].splitlines(keepends=True)]
        yield Block(
            section=above[-1] if above else "",
            line=text.count("\n", 0, fence.start()) + 1,
            language=fence[2],
            text="".join(lines),
        )
