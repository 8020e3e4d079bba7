"""The pages about schedules, as they stand there: their files, and their commands."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_how_to_pages import environment
from tests.support.databases import temporary_database
from tests.support.pages import ROOT, blocks
from tests.support.recorders import migrated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEDULING = blocks("docs/how-to/schedule-a-job.md")
BACKFILL = blocks("docs/how-to/backfill-a-schedule.md")


@pytest.fixture(scope="module")
def shell(checkout, tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Return a function that runs commands in the folder of the page's files."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in SCHEDULING.items():
        if "." in name:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    with temporary_database(checkout, "schedules") as url:
        migrated(url)
        variables = environment(
            LEVERET_DATABASE_URL=url,
            LEVERET_ACTORS="acme.jobs",
            LEVERET_SCHEDULES="schedules.toml",
            PYTHONPATH=f"{ROOT}:{folder}",
        )

        def run(script: str, status: int = 0) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "tests.support.commandline"],
                input=script,
                cwd=folder,
                env=variables,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == status, f"{script}: {done.stdout}\n{done.stderr}"
            return done.stdout + done.stderr

        yield run


def test_what_is_declared_becomes_rows(shell):
    """Next to actors and in the file; the second time there is nothing to do."""
    said = shell(SCHEDULING["reconcile"] + "leveret schedules reconcile\n")
    for name in ("report.build", "inbox.fetch", "inbox.archive", "report.weekly"):
        assert sum(line.startswith(f"{name} ") for line in said.splitlines()) == 2
    assert "would be" in said
    assert said.endswith("the schedules are what is declared\n")
    listed = json.loads(shell("leveret schedules list --json"))["items"]
    found = {
        one["name"]: (one["origin"], one["overlap"], len(one["next"]))
        for one in listed
        if not one["name"].startswith("leveret.")
    }
    assert found == {
        "report.build": ("code", "allow", 5),
        "inbox.fetch": ("code", "skip", 5),
        "inbox.archive": ("code", "allow", 5),
        "report.weekly": ("file", "queue", 5),
    }
    refused = shell("leveret schedules remove report.weekly", status=1)
    assert "declared in a file" in refused


def test_a_schedule_is_made_and_kept_by_hand(shell):
    """Added, changed, listed, shown, paused, resumed, run, looked back at and removed."""
    said = shell(SCHEDULING["by-hand"] + SCHEDULING["by-hand-too"])
    assert "cron 30 6 L * * (Europe/Lisbon), next at" in said
    assert '{"of": "month"}' in said
    assert "note:" not in said
    assert "paused by cli:" in said
    assert "run by cli:" in said
    assert said.endswith("schedule report.month is removed\n")


def test_a_preview_shows_what_clocks_do():
    """Line for line as the page has it; the shell takes the expression as it is written."""
    page = (ROOT / "docs/how-to/schedule-a-job.md").read_text()
    done = subprocess.run(
        ["sh", "-e", "-c", SCHEDULING["preview"]],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    said = [line.rstrip() for line in done.stdout.splitlines()]
    assert len(said) == 4
    assert "\n".join(said) in page


def test_what_is_past_is_backfilled(shell):
    """Shown first, then published, then known."""
    page = (ROOT / "docs/how-to/backfill-a-schedule.md").read_text()
    made = "leveret schedules add report.daily --actor report.build --cron '0 9 * * *'\n"
    looked = [line.rstrip() for line in shell(made + BACKFILL["look"]).splitlines()]
    assert looked[-1] == "4 jobs to publish; 0 were fired before"
    (first,) = [line for line in looked if line.startswith("2026-02-27")]
    assert first in page
    said = shell(BACKFILL["publish"] + BACKFILL["publish"] + BACKFILL["history"])
    assert "4 jobs published" in said
    assert "0 jobs to publish; 4 were fired before" in said
    assert said.count("backfill by cli:") == 4
