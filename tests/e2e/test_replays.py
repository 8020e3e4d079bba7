"""Replays from end to end: worker, recorder and relay as processes, and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.databases import temporary_database
from tests.support.pages import blocks
from tests.support.recorders import Ledger, RecorderProcess, migrated
from tests.support.relays import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workers import Rig


pytestmark = pytest.mark.timeout(300)

COMMAND = Path(sys.executable).parent / "leveret"
MAIL = """
import leveret


@leveret.actor("mail.send")
def send(to: str) -> str: ...
"""


@dataclass
class Stack:
    """All that a replay goes through."""

    rig: Rig
    ledger: Ledger
    #: Where the command is run.
    folder: Path

    def dead(self, *words: object, status: int = 0) -> Any:
        """Run ``leveret dead … --json``."""
        done = subprocess.run(
            [COMMAND, "dead", *map(str, words), "--json"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def wait_letters(self, count: int, **columns: Any) -> list[dict[str, Any]]:
        """Wait for so many dead letters in the ledger; return them in order."""
        where = " AND ".join(f"{name} = %s" for name in columns) or "true"
        self.ledger.wait_value(
            count,
            f"SELECT count(*) FROM dead_letters WHERE {where}",
            *columns.values(),
            timeout=90.0,
        )
        return self.ledger.rows(
            f"SELECT * FROM dead_letters WHERE {where} ORDER BY id", *columns.values()
        )


@pytest.fixture(scope="module")
def url(checkout) -> Iterator[str]:
    """Return the URL of a database of these tests: the relay empties its outbox."""
    with temporary_database(checkout, "replays") as found:
        yield migrated(found)


@pytest.fixture(scope="module")
def processes(vhost, url, tmp_path_factory) -> Iterator[None]:
    """Start a recorder and a relay."""
    folder = tmp_path_factory.mktemp("processes")
    recorder = RecorderProcess(vhost.environment("recorder"), url, folder)
    relay = RelayProcess(vhost, folder=folder, LEVERET_DATABASE_URL=url)
    try:
        recorder.wait_ready()
        relay.wait_ready()
        yield
    finally:
        recorder.kill()
        relay.kill()
        print(recorder.log, relay.log)


@pytest.fixture
def stack(worker, processes, url, tmp_path, monkeypatch) -> Iterator[Stack]:
    """Return the stack with empty tables; the worker is the test's to start."""
    monkeypatch.setenv("LEVERET_DATABASE_URL", url)
    monkeypatch.setenv("LEVERET_EDITED_REPLAY", "true")
    monkeypatch.setenv("PATH", str(COMMAND.parent), prepend=os.pathsep)
    ledger = Ledger(url)
    tables = "jobs, attempts, dead_letters, dead_letter_groups"
    ledger._connection.execute(f"TRUNCATE {tables} CASCADE")
    yield Stack(worker, ledger, tmp_path)
    ledger.close()


def test_a_group_of_failures_is_repaired_and_replayed_to_success(stack):
    """Each job keeps its id and its history; one that dies again says so in its group."""
    broken = {*range(20)}

    @stack.rig.actor("mail.send", max_retries=0)
    def send(n: int) -> str:
        if n in broken:
            raise OSError(f"no mail server for letter {n}")
        return f"sent {n}"

    stack.rig.start()
    ids = [stack.rig.send("mail.send", {"n": n}, correlation_id="c") for n in range(20)]
    stack.wait_letters(20)
    (group,) = stack.dead("groups")["items"]
    assert (group["actor"], group["reason"], group["open"], group["died_again"]) == (
        "mail.send",
        "exhausted",
        20,
        0,
    )
    broken.difference_update(range(18))
    done = stack.dead("replay", "--group", group["fingerprint"][:6], "--yes", "--wait", status=1)
    assert (done["total"], done["published"], done["refused"]) == (20, 20, 0)
    assert done["results"] == {"succeeded": 18, "died_again": 2, "live": 0, "other": 0}
    for n, job_id in enumerate(ids[:18]):
        row = stack.ledger.wait(job_id, "succeeded")
        assert (row["run"], row["attempt"], row["correlation_id"]) == (1, 1, "c")
        assert bytes(row["result"]) == f'"sent {n}"'.encode()
        outcomes = [(a["run"], a["outcome"]) for a in stack.ledger.attempts(job_id)]
        assert outcomes == [(0, "dead"), (1, "succeeded")]
    again = stack.wait_letters(2, run=1)
    (group,) = stack.dead("groups")["items"]
    assert (group["total"], group["open"], group["replayed"], group["died_again"]) == (22, 2, 20, 2)
    shown = stack.dead("show", again[0]["id"])
    assert [(x["run"], x["state"]) for x in shown["letters"]] == [(0, "replayed"), (1, "open")]
    assert [x["id"] for x in shown["replays"]] == [done["id"]]
    broken.clear()
    done = stack.dead("replay", again[0]["id"], again[1]["id"], "--yes", "--wait", "--rate", 100)
    assert done["results"]["succeeded"] == 2
    assert {stack.ledger.wait(job_id, "succeeded")["run"] for job_id in ids[18:]} == {2}


def test_what_only_the_broker_has_seen_is_replayed_as_well(stack):
    """A job that no queue wanted has its actor now; one without an id gets one."""
    stack.rig.raw(b'{"n": 1}', key="any.late.comer", message_id="early", headers={"x-tenant": "a"})
    stack.rig.raw(b'{"n": ', key="default.late.comer")
    letters = stack.wait_letters(1, reason="unroutable")
    found = []

    @stack.rig.actor("late.comer")
    def come(n: int) -> None:
        found.append(n)

    stack.rig.start()
    letters += stack.wait_letters(1, reason="not-json")
    stack.rig.vhost.declare({"late.comer": "default"})
    done = stack.dead("replay", "--reason", "unroutable", "--yes", "--wait")
    assert done["results"]["succeeded"] == 1
    row = stack.ledger.wait("early", "succeeded")
    assert (row["run"], row["queue"]) == (1, "default")
    assert (row["headers"]["x-tenant"], found) == ("a", [1])
    stack.dead("replay", letters[1]["id"], "--yes", "--wait", status=1)
    again = stack.wait_letters(2, reason="not-json")[1]
    (replayed,) = [x for x in stack.wait_letters(2, reason="not-json") if x["id"] != again["id"]]
    assert again["job_id"] == (replayed["new_job_id"] or replayed["job_id"])
    assert bytes(again["body"]) == b'{"n": '


def test_an_edited_replay_succeeds_as_a_new_job(stack, monkeypatch):
    """The old one stays dead, and each knows the other."""

    @stack.rig.actor("mail.send")
    def send(to: str) -> str:
        return to

    (stack.folder / "mailing.py").write_text(MAIL)
    monkeypatch.setenv("LEVERET_ACTORS", "mailing")
    stack.rig.start()
    old = stack.rig.send("mail.send", {"too": "ada"}, correlation_id="order-7")
    (letter,) = stack.wait_letters(1, reason="bad-arguments")
    edit = json.dumps({"to": "ada", "too": None})
    done = stack.dead("replay", letter["id"], "--yes", "--wait", "--edit", edit)
    assert done["results"]["succeeded"] == 1
    (letter,) = stack.wait_letters(1, state="replayed")
    row = stack.ledger.wait(letter["new_job_id"], "succeeded")
    assert (bytes(row["result"]), row["correlation_id"], row["run"]) == (b'"ada"', "order-7", 0)
    assert row["headers"]["x-leveret-replay-of"] == old
    assert stack.ledger.job(old)["state"] == "dead"


def test_the_how_to_page_does_what_it_shows(stack):
    """Its commands run as they stand there; ids and the group are those of this test."""
    page = blocks("docs/how-to/replay-dead-letters.md")
    broken = True

    @stack.rig.actor("email.send", max_retries=0)
    def send(to: str) -> None:
        if broken:
            raise OSError("no mail server")

    stack.rig.start()
    good = [stack.rig.send("email.send", {"to": f"{n}@example.com"}) for n in range(3)]
    wrong = stack.rig.send("email.send", {"too": "ada@example.com"})
    letters = stack.wait_letters(4)
    (bad,) = [letter for letter in letters if letter["job_id"] == wrong]
    (fingerprint,) = {x["fingerprint"] for x in letters if x["job_id"] != wrong}

    def run(name, status=0):
        script = page[name].replace("3fa1c0", fingerprint[:6]).replace("17", str(bad["id"]))
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=stack.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    assert "OSError: no" in run("groups")
    assert len(run("list").splitlines()) > 3
    shown = run("show")
    assert '"too": "ada@example.com"' in shown
    assert "bad-arguments" in shown
    assert json.loads(run("body")) == {"too": "ada@example.com"}
    broken = False
    assert "3 of 3 published" in run("replay")
    for job_id in good:
        stack.ledger.wait(job_id, "succeeded")
    assert "1 of 1 published" in run("edit")
    stack.wait_letters(4, state="replayed")
    assert len(run("replays").splitlines()) >= 3
    broken = True
    stack.rig.send("email.send", {"to": "x@example.com"})
    stack.wait_letters(1, state="open")
    assert run("discard") == "1 dead letter discarded\n"
