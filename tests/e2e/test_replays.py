"""Replays from end to end: worker, recorder and relay as processes, and the command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from leveret.cli.app import app
from tests.support.recorders import Ledger, RecorderProcess, migrated
from tests.support.relays import RelayProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workers import Rig


@dataclass
class Stack:
    """All that a replay goes through."""

    rig: Rig
    ledger: Ledger

    def dead(self, *words: object, status: int = 0) -> Any:
        """Run ``leveret dead … --json``."""
        done = CliRunner().invoke(app, ["dead", *map(str, words), "--json"])
        assert done.exit_code == status, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
        return json.loads(done.stdout)

    def wait_letters(self, count: int, **columns: Any) -> list[dict[str, Any]]:
        """Wait for so many dead letters in the ledger; return them in order."""
        where = " AND ".join(f"{name} = %s" for name in columns) or "true"
        self.ledger.wait_value(
            count, f"SELECT count(*) FROM dead_letters WHERE {where}", *columns.values()
        )
        return self.ledger.rows(
            f"SELECT * FROM dead_letters WHERE {where} ORDER BY id", *columns.values()
        )


@pytest.fixture(scope="module")
def url(database) -> str:
    """Return the URL of a migrated database."""
    return migrated(database)


@pytest.fixture
def stack(worker, vhost, url, tmp_path, monkeypatch) -> Iterator[Stack]:
    """Start a recorder and a relay; the worker is this test's to start."""
    monkeypatch.setenv("LEVERET_DATABASE_URL", url)
    monkeypatch.setenv("LEVERET_EDITED_REPLAY", "true")
    ledger = Ledger(url)
    ledger._connection.execute("TRUNCATE jobs, attempts, dead_letters, dead_letter_groups CASCADE")
    recorder = RecorderProcess(vhost.environment("recorder"), url, tmp_path)
    relay = RelayProcess(vhost, folder=tmp_path, LEVERET_DATABASE_URL=url)
    try:
        recorder.wait_ready()
        relay.wait_ready()
        yield Stack(worker, ledger)
    finally:
        ledger.close()
        recorder.kill()
        relay.kill()
        print(recorder.log, relay.log)


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

    monkeypatch.setattr("leveret.cli.deadview.load_actors", lambda _: stack.rig.broker)
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
