"""`leveret schedules`: what programs get, and what people are told when something is wrong."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from leveret.cli.app import app


@pytest.fixture
def leveret(ledger_database, monkeypatch):
    """Return a function that runs the command on a database with tables."""
    monkeypatch.setenv("LEVERET_DATABASE_URL", ledger_database)
    # Nothing that another test would find loaded.
    monkeypatch.setenv("LEVERET_ACTORS", "no_such_module")

    def run(*words: str, status: int = 0, text: str | None = None) -> str:
        done = CliRunner().invoke(app, ["schedules", *words], input=text)
        assert done.exit_code == status, done.output
        return done.stdout if status == 0 else done.output

    return run


@pytest.fixture
def name(leveret, new_name):
    """Make an hourly schedule and return its name."""
    made = new_name()
    leveret("add", made, "--actor", "email.send", "--cron", "5 * * * *", "--tz", "Europe/Lisbon")
    return made


def test_all_that_is_given_is_kept_and_shown(leveret, new_name):
    """Arguments as a document and one by one, durations as texts, times in the zone."""
    name = new_name()
    words = (
        *("--actor", "email.send", "--at", "2096-06-01T09:00", "--tz", "Europe/Lisbon"),
        *("--arguments", "-", "--argument", "n=3", "--argument", "of=a day"),
        *("--queue", "bulk", "--option", "priority=2", "--jitter", "30s", "--window", "2d"),
        *("--end", "2097-01-01", "--missed", "all", "--overlap", "queue", "--description", "x"),
    )
    made = json.loads(leveret("add", name, *words, "--json", text='{"to": "ada", "n": 1}'))
    assert made["at"] == "2096-06-01T08:00:00+00:00"
    assert made["arguments"] == {"to": "ada", "n": 3, "of": "a day"}
    assert (made["queue"], made["options"], made["jitter"], made["window"]) == (
        "bulk",
        {"priority": 2},
        30,
        172800,
    )
    assert made["end"] == "2097-01-01T00:00:00+00:00"
    assert (made["missed"], made["overlap"], made["state"]) == ("all", "queue", "active")
    (fire,) = made["next"]
    assert fire["local"] == "2096-06-01T09:00:00+01:00"
    assert json.loads(leveret("show", name, "--json")) == made


def test_a_change_changes_what_is_given(leveret, name):
    """Arguments one by one are added; --without takes away; the same again is no change."""
    before = json.loads(leveret("show", name, "--json"))
    leveret("change", name, "--argument", "to=ada", "--window", "1h")
    leveret("change", name, "--argument", "n=1", "--without", "window")
    after = json.loads(leveret("show", name, "--json"))
    assert after["arguments"] == {"to": "ada", "n": 1}
    assert (after["window"], after["version"], after["since"]) == (None, 3, before["since"])
    assert "as it was" in leveret("change", name, "--argument", "n=1")
    anew = json.loads(leveret("change", name, "--every", "90s", "--json"))
    assert (anew["every"], anew["cron"], anew["tz"]) == (90, None, "UTC")
    assert anew["since"] > before["since"]


def test_next_fires_are_shown_in_the_zone_and_in_utc(leveret, name):
    """As many as are asked for; none of a schedule that is paused."""
    listed = json.loads(leveret("list", "--actor", "email.send", "--next", "3", "--json"))
    (found,) = [one for one in listed["items"] if one["name"] == name]
    slots = [datetime.fromisoformat(fire["slot"]) for fire in found["next"]]
    assert [after - before for before, after in pairwise(slots)] == [timedelta(hours=1)] * 2
    assert all(slot.minute == 5 for slot in slots)
    leveret("pause", name)
    paused = json.loads(leveret("list", "--state", "paused", "--limit", "1000", "--json"))
    (found,) = [one for one in paused["items"] if one["name"] == name]
    assert (found["state"], found["next"]) == ("paused", [])
    table = leveret("list", "--limit", "1000")
    assert [line for line in table.splitlines() if line.startswith(f"{name} ")]


def test_a_backfill_is_planned_and_done_for_programs(leveret, name):
    """With the ids of the jobs; the history has them, too."""
    words = ("--from", "2026-03-01T00:00", "--to", "2026-03-01T02:30", "--json")
    planned = json.loads(leveret("backfill", name, *words, "--dry-run"))
    assert [job["slot"] for job in planned["jobs"]] == [
        "2026-03-01T00:05:00+00:00",
        "2026-03-01T01:05:00+00:00",
        "2026-03-01T02:05:00+00:00",
    ]
    done = json.loads(leveret("backfill", name, *words, "--yes"))
    assert done["jobs"] == planned["jobs"]
    again = json.loads(leveret("backfill", name, *words, "--dry-run"))
    assert (again["jobs"], again["fired_before"]) == ([], 3)
    history = json.loads(leveret("history", name, "--outcome", "fired", "--json"))
    assert [slot["job_id"] for slot in history["items"]] == [
        job["job_id"] for job in reversed(done["jobs"])
    ]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("add", "x y", "--actor", "a.b", "--every", "60"), 1, "no spaces"),
        (("add", "x", "--every", "60"), 1, "actor '': it has to be given"),
        (("add", "x", "--actor", "a.b"), 1, "give one of cron, every and at"),
        (("add", "x", "--actor", "a.b", "--cron", "0 25 * * *"), 1, "column 3"),
        (("add", "x", "--actor", "a.b", "--cron", "0 0 30 2 *"), 1, "no such day"),
        (("add", "x", "--actor", "a.b", "--at", "2020-01-01"), 1, "never fire"),
        (("add", "x", "--actor", "a.b", "--every", "60", "--queue", "gpu"), 1, "there is none"),
        (
            ("add", "x", "--actor", "a.b", "--cron", "@daily", "--tz", "Europe/Lisbo"),
            1,
            "Europe/Lisbon",
        ),
        (("add", "x", "--actor", "a.b", "--every", "60", "--arguments", "{"), 2, "is not JSON"),
        (("add", "x", "--actor", "a.b", "--every", "60", "--arguments", "1"), 1, "JSON object"),
        (("add", "x", "--actor", "a.b", "--every", "60", "--argument", "x"), 2, "NAME=VALUE"),
        (("add", "x", "--actor", "a.b", "--every", "60", "--option", "delay=1"), 1, "no such"),
        (("change", "no.such", "--every", "60"), 1, "there is no schedule"),
        (("change", "no.such"), 2, "say what is to change"),
        (("change", "no.such", "--without", "tea"), 2, "--without tea"),
        (("pause", "no.such"), 1, "there is no schedule"),
        (("run", "no.such"), 1, "there is no schedule"),
        (("history", "no.such"), 1, "there is no schedule"),
        (("history", "x", "--outcome", "late"), 2, "--outcome is one of"),
        (("history", "x", "--after", "?"), 1, "cursor"),
        (("preview",), 2, "name a schedule, or say when"),
        (("preview", "x", "--cron", "@daily"), 2, "name a schedule, or say when"),
        (("preview", "--cron", "@daily", "--from", "now"), 2, "--from 'now': it is a time"),
        (("backfill", "no.such", "--from", "1d"), 1, "there is no schedule"),
        (("list", "--origin", "me"), 2, "--origin is"),
        (("reconcile",), 2, "no_such_module"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(leveret, words, status, said):
    """With an exit status that tells bad usage from a refusal."""
    shown = leveret(*words, status=status)
    assert said in " ".join(shown.split())
    assert "Traceback" not in shown


def test_what_is_too_much_or_unasked_is_not_done(leveret, name):
    """A range beyond the limit is refused; nobody can be asked in a pipe."""
    words = ("backfill", name, "--from", "2026-03-01", "--to", "2026-03-02")
    assert "more than 5 slots" in leveret(*words, "--limit", "5", "--yes", status=1)
    assert "--yes says that it is meant" in leveret(*words, status=2)
    assert "the scheduler's" in leveret(*words[:-1], "2096-01-01", status=1)
    assert json.loads(leveret("history", name, "--json"))["items"] == []


@pytest.mark.usefixtures("leveret")
def test_arguments_that_cannot_be_checked_are_a_warning(new_name):
    """Where the actors are not installed, the schedule is made all the same."""
    done = CliRunner().invoke(
        app, ["schedules", "add", new_name(), "--actor", "other.team", "--every", "1h"]
    )
    assert done.exit_code == 0
    assert "the arguments are not checked" in done.stderr
