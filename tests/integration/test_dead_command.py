"""``leveret dead``: what people see, what programs get, and exit codes that scripts can use."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from leveret.cli.app import app
from leveret.deadletters import LetterState, get_replay
from leveret.deadletters.runner import step
from leveret.message import new_id
from tests.support import letters
from tests.support.letters import put
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

ME = f"cli:{getpass.getuser()}@{socket.gethostname()}"
HOSTILE = "\x1b[2J\x07 evil\u202egnp Grüße"


@pytest.fixture(scope="module")
def store(database) -> Iterator[Engine]:
    """Return the engine of a migrated database."""
    with letters.ledger(database) as engine:
        yield engine


@pytest.fixture
def engine(store, database, monkeypatch) -> Engine:
    """Return the engine, its tables empty; the command finds the same database."""
    letters.clear(store)
    monkeypatch.setenv("LEVERET_DATABASE_URL", database)
    return store


def dead(*words, status=0):
    """Run the command; return what it prints."""
    done = CliRunner().invoke(app, ["dead", *map(str, words)])
    assert done.exit_code == status, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
    return done.stdout if status == 0 else done.stdout + done.stderr


def dead_json(*words, status=0):
    """Run the command for a program."""
    done = CliRunner().invoke(app, ["dead", *map(str, words), "--json"])
    assert done.exit_code == status, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
    return json.loads(done.stdout)


@contextmanager
def a_runner(engine) -> Iterator[None]:
    """Step as the relay does."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            over.wait(min(step(engine), 0.05))

    runner = threading.Thread(target=work)
    runner.start()
    try:
        yield
    finally:
        over.set()
        runner.join(20)


def put_many(engine, count, **columns):
    """Store dead letters."""
    with engine.begin() as connection:
        return [put(connection, {"n": n}, **columns) for n in range(count)]


# ------------------------------------------------------------------------------------------ looking


def test_groups_and_lists_are_tables_and_documents(engine):
    """By default what is open; a group is named by how its fingerprint begins."""
    put_many(engine, 3, fingerprint="aaaa1111", error=HOSTILE)
    (other,) = put_many(engine, 1, fingerprint="bbbb2222", actor="data.load", run=1)
    put_many(engine, 1, fingerprint="bbbb2222", actor="data.load", state="discarded")
    shown = dead("groups")
    first, second = shown.splitlines()[1:]
    assert first.split()[:6] == ["bbbb2222", "data.load", "exhausted", "2", "0", "1"]
    assert second.split()[:6] == ["aaaa1111", "mail.send", "exhausted", "3", "0", "0"]
    assert "OSError: \\x1b[2J\\x07 evil\\u202egnp Grüße" in second
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE dead_letter_groups SET first_at = first_at - interval '1 day'"
                " WHERE fingerprint = 'aaaa1111'"
            )
        )
    (new,) = dead_json("groups", "--since", "1h")["items"]
    assert new["fingerprint"] == "bbbb2222"
    by_open = dead_json("groups", "--by-open")
    assert [group["open"] for group in by_open["items"]] == [3, 2]
    listed = dead("list", "--group", "bb")
    assert listed.splitlines()[1].split()[0] == str(other)
    assert len(listed.splitlines()) == 2
    assert len(dead_json("list", "--state", "any", "--group", "bbbb")["items"]) == 2
    page = dead_json("list", "--limit", 2, "--actor", "mail.send", "--since", "1h")
    following = dead_json("list", "--limit", 2, "--actor", "mail.send", "--after", page["next"])
    assert len({item["id"] for item in page["items"] + following["items"]}) == 3
    assert following["next"] is None
    assert dead_json("list", "--until", "2020-01-01T00:00")["items"] == []
    assert "no group begins with 'zz'" in dead("list", "--group", "zz", status=1)
    assert "--state is any, or one of" in dead("list", "--state", "lost", status=2)
    assert "how long ago" in dead("list", "--since", "soon", status=2)
    assert "not one that a page has ended with" in dead("list", "--after", "x", status=1)


def test_a_dead_letter_is_shown_with_everything_and_harmless(engine):
    """Error, traceback, headers, body, and that its job had been replayed."""
    job_id = new_id()
    with engine.begin() as connection:
        first = put(connection, job_id=job_id)
    dead("replay", first, "--yes", "--detach")
    step(engine)
    with engine.begin() as connection:
        second = put(
            connection,
            {"to": "Grüße\0"},
            job_id=job_id,
            run=1,
            error=HOSTILE,
            traceback="Traceback (most recent call last):\n  File \x1b",
            headers={"x-tenant": "acme", "x-death": [{"count": 1, "queue": "leveret.delay.0.1"}]},
        )
    shown = dead("show", second)
    for words in (
        f"dead letter {second}\n",
        "run         1 (it has been replayed, and died again)\n",
        "error       OSError: \\x1b[2J\\x07 evil\\u202egnp Grüße\n",
        "  File \\x1b\n",
        "  x-tenant: acme\n",
        "'queue': 'leveret.delay.0.1'",
        '{\n  "to": "Grüße\\u0000"\n}\n',
        "dead letters of this job\n",
        "replays\n",
        "job        dead, run 1",
    ):
        assert words in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    document = dead_json("show", second)
    assert json.loads(document["body"]["text"]) == {"to": "Grüße\0"}
    assert document["properties"]["headers"]["x-tenant"] == "acme"
    assert [letter["state"] for letter in document["letters"]] == ["replayed", "open"]
    assert document["replays"][0]["requested_by"] == ME
    assert f"replayed by {ME}" in dead("show", first)
    assert "no dead letter 999999999" in dead("show", "999999999", status=1)
    assert "Invalid value for 'ID'" in dead("show", 2**63, status=2)


def test_the_original_bytes_can_be_had(engine):
    """All of them, whatever they are; people see the beginning."""
    body = bytes(range(256)) * 4096
    with engine.begin() as connection:
        (letter_id,) = [put(connection, body=body, reason="not-utf8")]
    done = CliRunner().invoke(app, ["dead", "show", str(letter_id), "--body"])
    assert done.stdout_bytes == body
    shown = dead("show", letter_id)
    assert "00000010  10 11 12" in shown
    assert "… of 1,048,576 bytes in all" in shown
    assert len(shown) < 10_000
    assert dead_json("show", letter_id)["body"]["encoding"] == "base64"


# ------------------------------------------------------------------------------------------- acting


def test_a_replay_is_followed_to_its_end(engine):
    """And the exit status is 1 when some were refused."""
    put_many(engine, 4)
    with a_runner(engine):
        shown = dead("replay", "--actor", "mail.send", "--yes")
        assert "4 of 4 published\n" in shown
        assert "of its jobs 0 succeeded, 0 died again, 4 wait or run" in shown
        put_many(engine, 1)
        put_many(engine, 1, properties=letters.UNREADABLE)
        shown = dead("replay", "--all", "--yes", "--rate", "50", status=1)
        assert "1 of 2 published, 1 refused" in shown
        done = dead_json("replay", "--follow", 1 + _first_replay(engine), status=1)
    assert (done["published"], done["refused"], done["state"]) == (1, 1, "done")
    assert done["results"]["live"] == 1
    assert len(dead("replays").splitlines()) == 3
    assert dead_json("replays", "--limit", 1)["items"][0]["total"] == 2


def _first_replay(engine, timeout=0.0):
    def there():
        with engine.connect() as connection:
            return connection.execute(text("SELECT min(id) FROM replays")).scalar_one()

    return wait_until(there, timeout=timeout, what="the command has created its replay")


def test_wait_waits_for_the_jobs_too(engine):
    """And says with its exit status whether one died again."""
    put_many(engine, 2)

    def end(state):
        with engine.begin() as connection:
            return connection.execute(
                text("UPDATE jobs SET state = :s WHERE state = 'queued'"), {"s": state}
            ).rowcount

    with a_runner(engine):
        for state, status in (("succeeded", 0), ("dead", 1)):
            (letter_id,) = put_many(engine, 1)
            ending = threading.Thread(
                target=lambda: wait_until(lambda: end(state), timeout=30)  # noqa: B023
            )
            ending.start()
            found = dead_json("replay", letter_id, "--yes", "--wait", status=status)
            ending.join()
            assert found["results"]["live"] == 0


def test_nothing_is_done_without_a_filter_or_a_yes(engine):
    """Nor when both are contradictory; nobody can be asked in a script."""
    put_many(engine, 2)
    for command in ("replay", "discard"):
        assert "say which dead letters" in dead(command, status=2)
        assert "two answers" in dead(command, "--all", "--reason", "expired", status=2)
        assert "--yes says that it is meant" in dead(command, "--all", status=2)
        assert "no open dead letter matches" in dead(command, "999999999", "--yes", status=1)
    assert "stand alone" in dead("replay", "--follow", 1, "--all", status=2)
    assert "no JSON" in dead("replay", "--all", "--edit", "{", status=2)
    assert "is a JSON object" in dead("replay", "--all", "--edit", "[]", status=2)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM replays")).scalar_one() == 0


def test_discarding_and_cancelling_are_written_down(engine):
    """Who, what and how many; refusals as well."""
    ids = put_many(engine, 5)
    assert dead("discard", *ids[:2], "--yes") == "2 dead letters discarded\n"
    note = ("--note", "their account is closed\x00")
    assert dead_json("discard", ids[2], *note, "--yes") == {"discarded": 1}
    made = dead_json("replay", "--all", "--yes", "--detach")
    assert dead("replay", "--cancel", made["id"]) == (
        f"replay {made['id']} is cancelled: 0 of 2 were published, the others are open again\n"
    )
    assert "is cancelled already" in dead("replay", "--cancel", made["id"], status=1)
    assert "LEVERET_EDITED_REPLAY" in dead("replay", ids[3], "--yes", "--edit", "{}", status=1)
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT who, action, outcome, detail FROM audit_log ORDER BY id")
        ).all()
    assert {row.who for row in rows} == {ME}
    assert [(row.action, row.outcome) for row in rows] == [
        ("dead-letters.discard", "done"),
        ("dead-letters.discard", "done"),
        ("replay.create", "done"),
        ("replay.cancel", "done"),
        ("replay.cancel", "refused"),
        ("replay.create", "refused"),
    ]
    assert [row.detail.get("note") for row in rows[:2]] == [None, "their account is closed\ufffd"]
    assert rows[-1].detail == {"reason": "edits-are-off"}


def test_new_arguments_are_checked_by_the_actors_that_are_loaded(engine, monkeypatch, tmp_path):
    """The module is found in the working directory."""
    (tmp_path / "dead_command_actors.py").write_text(
        "import leveret\n\n\n@leveret.actor('mail.send')\ndef send(to: str, n: int = 1): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEVERET_EDITED_REPLAY", "true")
    monkeypatch.setenv("LEVERET_ACTORS", "dead_command_actors")
    with engine.begin() as connection:
        letter_id = put(connection, {"too": "ada"}, reason="bad-arguments")
    wrong = dead("replay", letter_id, "--yes", "--edit", '{"to": "ada"}', status=1)
    assert f"dead letter {letter_id}: mail.send: too: Extra inputs are not permitted" in wrong
    made = dead_json(
        "replay", letter_id, "--yes", "--detach", "--edit", '{"to": "ada", "too": null}'
    )
    step(engine)
    with engine.connect() as connection:
        assert get_replay(connection, made["id"]).published == 1
        (row,) = letters.outbox(connection)
        assert row.body == b'{"to":"ada"}'
        letter = letters.letter(connection, letter_id)
        assert letter.state == LetterState.REPLAYED
    assert f"new job    {letter.new_job_id}" in dead("show", letter_id)


def test_ctrl_c_leaves_the_replay_running_and_says_how_to_go_on(engine, database):
    """With the commands to follow it and to stop it."""
    put_many(engine, 3)
    command = subprocess.Popen(
        [str(Path(sys.executable).parent / "leveret"), "dead", "replay", "--all", "--yes"],
        env={**os.environ, "LEVERET_DATABASE_URL": database},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    replay_id = _first_replay(engine, timeout=30)
    first = command.stderr.readline()
    assert first == f"replay {replay_id} of 3 dead letters; Ctrl-C leaves it running\n"
    command.send_signal(signal.SIGINT)
    printed, said = command.communicate(timeout=30)
    assert (command.returncode, printed) == (130, "")
    assert f"replay {replay_id} goes on without you" in said
    assert f"leveret dead replay --follow {replay_id}" in said
    assert f"leveret dead replay --cancel {replay_id}" in said
    with engine.connect() as connection:
        assert get_replay(connection, replay_id).state == "running"
