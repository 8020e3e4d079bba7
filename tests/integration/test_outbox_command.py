"""`leveret outbox`: what waits to be published, what cannot be, and trying again."""

from __future__ import annotations

import json

import psycopg
import pytest
from typer.testing import CliRunner

from leveret.cli.app import app
from tests.support.databases import temporary_database
from tests.support.recorders import migrated
from tests.support.relays import lay_out

ROWS = """INSERT INTO leveret_outbox (job_id, actor, queue, body, hold_until, error, created_at)
    VALUES ('fresh', 'email.send', 'bulk', '{}', '-infinity', NULL, now() - interval '90 s'),
        ('late', 'email.send', NULL, '{}', now() + interval '400 days', NULL, now()),
        ('full', 'email.send', NULL, '{}', now() + interval '1 hour', 'the queue is full', now()),
        ('large', 'report.make', NULL, '{}', 'infinity', E'the body has\n9 bytes', now())"""


@pytest.fixture(scope="module")
def databases(checkout):
    """Return Leveret's database, and a shop's."""
    with temporary_database(checkout, "own") as own, temporary_database(checkout, "shop") as shop:
        yield migrated(own), lay_out(shop)


@pytest.fixture
def leveret(databases, monkeypatch):
    """Return a function that runs the command on both, with four jobs in each state in ours."""
    for url in databases:
        with psycopg.connect(url) as connection:
            connection.execute("DELETE FROM leveret_outbox")
    with psycopg.connect(databases[0]) as connection:
        connection.execute(ROWS)
    monkeypatch.setenv("LEVERET_DATABASE_URL", databases[0])
    monkeypatch.setenv("LEVERET_OUTBOX_URLS", ",".join(databases))
    return lambda *words: CliRunner().invoke(app, ["outbox", *words])


def _standing(listed):
    return [(job["job_id"], job["standing"]) for job in json.loads(listed.stdout)]


def test_jobs_are_listed_in_the_order_in_which_they_leave(leveret, databases):
    """What could leave is first; each says how it stands, and in which database."""
    with psycopg.connect(databases[1]) as connection:
        connection.execute(
            "INSERT INTO leveret_outbox (job_id, actor, body) VALUES ('theirs', 'a.b', '{}')"
        )
    assert _standing(leveret("list", "--json")) == [
        ("fresh", "waiting"),
        ("late", "not-due"),
        ("full", "put-off"),
        ("large", "failed"),
        ("theirs", "waiting"),
    ]
    shown = leveret("list").stdout.splitlines()
    assert shown[1].split()[:3] == ["fresh", "email.send", "bulk"]
    assert 90 <= int(shown[1].split()[4]) < 1000
    assert "the body has 9 bytes" in shown[4]
    own = databases[0].rpartition("/")[2]
    assert own in shown[1]
    assert databases[1].rpartition("/")[2] in shown[5]
    assert _standing(leveret("list", "--failed", "--json")) == [("large", "failed")]


def test_what_failed_is_tried_again_and_the_relay_is_told(leveret, databases):
    """Its error goes, the audit log says who wanted it, and what did not fail stays as it is."""
    with psycopg.connect(databases[0], autocommit=True) as listener:
        listener.execute("LISTEN leveret_outbox")
        done = leveret("retry", "large", "--json")
        assert done.exit_code == 0
        assert json.loads(done.stdout) == {"retried": ["large"], "unknown": []}
        assert list(listener.notifies(timeout=20, stop_after=1))
        assert ("large", "waiting") in _standing(leveret("list", "--json"))
        logged = listener.execute(
            "SELECT action, target, outcome, who FROM audit_log ORDER BY id DESC LIMIT 1"
        ).fetchone()
    assert logged[:3] == ("outbox.retry", "large", "done")
    assert logged[3].startswith("cli:")
    assert leveret("list", "--failed").stdout == "nothing failed\n"


def test_all_that_failed_is_tried_again_and_nothing_else(leveret):
    """Put off counts as failed; what is not due yet stays."""
    done = leveret("retry", "--all")
    assert done.stdout == "2 jobs will be tried again\n"
    assert dict(_standing(leveret("list", "--json"))) == {
        "fresh": "waiting",
        "full": "waiting",
        "large": "waiting",
        "late": "not-due",
    }


def test_a_job_that_has_not_failed_is_named(leveret):
    """The others are tried all the same."""
    done = leveret("retry", "large", "fresh", "nobody")
    assert done.exit_code == 1
    assert "1 job will be tried again" in done.stdout
    assert "fresh has not failed" in done.stderr
    assert "nobody has not failed" in done.stderr


@pytest.mark.parametrize("words", [["retry"], ["retry", "large", "--all"]])
def test_it_must_be_said_what_is_to_be_tried(leveret, words):
    """Neither everything by accident, nor both."""
    assert leveret(*words).exit_code == 2


def test_a_database_without_an_outbox_is_named(leveret, databases, monkeypatch):
    """With what to do about it."""
    with psycopg.connect(databases[1]) as connection:
        connection.execute("ALTER TABLE leveret_outbox RENAME TO elsewhere")
    try:
        done = leveret("list")
    finally:
        with psycopg.connect(databases[1]) as connection:
            connection.execute("ALTER TABLE elsewhere RENAME TO leveret_outbox")
    assert done.exit_code == 2
    assert "has no table leveret_outbox" in done.stderr


def test_an_empty_outbox_says_so(leveret, databases):
    """And not an empty table."""
    with psycopg.connect(databases[0]) as connection:
        connection.execute("DELETE FROM leveret_outbox")
    assert leveret("list").stdout == "the outbox is empty\n"
