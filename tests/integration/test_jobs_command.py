"""`leveret jobs` and `leveret workers` on the ledger of a database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from leveret.message import new_id
from leveret.store.engine import conninfo
from leveret.store.identity import own_time

if TYPE_CHECKING:
    from collections.abc import Callable

LEVERET = Path(sys.executable).with_name("leveret")


@pytest.fixture
def leveret(ledger_database: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command on the ledger."""

    def call(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            [LEVERET, *arguments],
            env={**os.environ, "LEVERET_DATABASE_URL": ledger_database, "COLUMNS": "250"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == status, (answer.stdout, answer.stderr)
        assert "Traceback" not in answer.stderr
        return answer

    return call


@pytest.fixture
def jobs(ledger_database: str) -> list[str]:
    """Return the ids of three jobs with one correlation id: dead, succeeded and scheduled."""
    ids = [new_id() for _ in range(3)]
    states = [("dead", "1 second"), ("succeeded", "30 milliseconds"), ("scheduled", None)]
    with psycopg.connect(conninfo(ledger_database)) as connection:
        for job_id, (state, took) in zip(ids, states, strict=True):
            connection.execute(
                "INSERT INTO jobs (id, created_at, actor, queue, body, state, correlation_id,"
                " started_at, finished_at, error_type, error, due_at) VALUES (%(id)s, %(at)s,"
                " 'report.send', 'bulk', %(body)s, %(state)s, %(flow)s, now(),"
                " now() + %(took)s::interval, %(type)s, %(error)s, %(due)s)",
                {
                    "id": job_id,
                    "at": own_time(job_id),
                    "body": '{"to": "a@b.c", "n": "[bold]é"}'.encode(),
                    "state": state,
                    "flow": f"flow-{ids[0]}",
                    "took": took,
                    "type": "SMTPError" if state == "dead" else None,
                    "error": "550 no such\nmailbox" if state == "dead" else None,
                    "due": "2099-01-01" if state == "scheduled" else None,
                },
            )
        for attempt, outcome in ((1, "retrying"), (2, "dead")):
            connection.execute(
                "INSERT INTO attempts (job_id, created_at, run, attempt, started_at, ended_at,"
                " outcome, worker, error, traceback) VALUES (%s, %s, 0, %s, now(),"
                " now() + interval '2 s', %s, 'w1', 'no such mailbox', 'File \"x.py\", line 1')",
                (ids[0], own_time(ids[0]), attempt, outcome),
            )
        connection.execute(
            "INSERT INTO workers (id, queues, threads, running, first_seen_at, seen_at, gone_at)"
            " VALUES ('alive', '{bulk,default}', 8, '{a,b}', now(), now(), NULL),"
            " ('away', '{bulk}', 8, '{}', now(), now(), now()) ON CONFLICT DO NOTHING"
        )
    return ids


def test_jobs_are_listed_by_filter_and_page(leveret, jobs) -> None:
    """For people and for programs, newest first, with a cursor for what follows."""
    flow = ("--correlation-id", f"flow-{jobs[0]}")
    document = json.loads(leveret("jobs", "list", *flow, "--json").stdout)
    assert [job["id"] for job in document["items"]] == jobs[::-1]
    assert document["next"] is None
    first = json.loads(leveret("jobs", "list", *flow, "--limit", "2", "--json").stdout)
    rest = leveret("jobs", "list", *flow, "--after", first["next"], "--json").stdout
    assert [job["id"] for job in json.loads(rest)["items"]] == jobs[:1]
    shown = leveret("jobs", "list", *flow, "--state", "dead", "--state", "expired").stdout
    assert jobs[0] in shown
    assert jobs[1] not in shown
    assert "SMTPError: 550 no such mailbox" in shown
    assert jobs[2] in leveret("jobs", "list", "-q", jobs[2], "--since", "1h").stdout
    assert jobs[2] not in leveret("jobs", "list", "-q", jobs[2], "--until", "1h").stdout


def test_one_job_is_shown_with_its_attempts(leveret, jobs) -> None:
    """With its arguments, its error, how long it took, and what was tried."""
    shown = leveret("jobs", "show", jobs[0]).stdout
    for words in ("report.send", "[bold]é", "SMTPError", "1.0 s", "retrying", "2.0 s", "w1"):
        assert words in shown
    assert 'File "x.py"' not in shown
    assert 'File "x.py"' in leveret("jobs", "show", jobs[0], "--traceback").stdout
    document = json.loads(leveret("jobs", "show", jobs[0], "--json").stdout)
    assert document["body"] == '{"to": "a@b.c", "n": "[bold]é"}'
    assert [attempt["outcome"] for attempt in document["attempts"]] == ["retrying", "dead"]


def test_what_is_not_there_or_not_meant_is_said_in_a_line(leveret, jobs) -> None:
    """An unknown job is status 1, a wrong option status 2."""
    assert "knows no job 'nobody'" in leveret("jobs", "show", "nobody", status=1).stderr
    assert "--after" in leveret("jobs", "list", "--after", "x", status=2).stderr
    assert "lost" in leveret("jobs", "list", "--state", "lost", status=2).stderr


def test_workers_are_listed_with_what_they_run(leveret, jobs) -> None:
    """Those that are gone only when asked for."""
    alive = {worker["id"] for worker in json.loads(leveret("workers", "--json").stdout)}
    assert "alive" in alive
    assert "away" not in alive
    shown = leveret("workers", "--all").stdout
    assert "bulk,default" in shown
    assert "away" in shown
    assert "gone" in shown


def test_errors_of_retried_jobs_are_one_line_for_each_cause(leveret, ledger_database):
    """What differs from job to job does not count; what has ended, or waits otherwise, neither."""
    actor = f"storm.{new_id()}"
    said = [f"mail.example:{port} is away" for port in (25, 587, 2525)] + ["no such customer"]
    with psycopg.connect(conninfo(ledger_database)) as connection:
        for attempt, error in enumerate(said, start=1):
            job_id = new_id()
            connection.execute(
                "INSERT INTO jobs (id, created_at, actor, queue, state, attempt, due_at, error,"
                " error_type, updated_at) VALUES (%s, %s, %s, 'bulk', 'retrying', %s,"
                " now() + %s * interval '1 minute', %s, 'OSError', now() + %s * interval '1 s')",
                (job_id, own_time(job_id), actor, attempt, 10 - attempt, error, attempt),
            )
        for state in ("dead", "queued", "scheduled"):
            job_id = new_id()
            connection.execute(
                "INSERT INTO jobs (id, created_at, actor, queue, state, error)"
                " VALUES (%s, %s, %s, 'bulk', %s, %s)",
                (job_id, own_time(job_id), actor, state, said[0]),
            )
    storm, other = json.loads(leveret("jobs", "errors", "--actor", actor, "--json").stdout)
    assert (storm["jobs"], storm["attempts"], storm["error"]) == (3, 3, said[2])
    assert other["next_at"] < storm["next_at"]  # the soonest of them
    assert (other["jobs"], other["error"]) == (1, "no such customer")
    shown = leveret("jobs", "errors", "--actor", actor, "--queue", "bulk").stdout.splitlines()
    assert shown[1].split()[:4] == [actor, "bulk", "3", "3"]
    assert shown[1].endswith("OSError: mail.example:2525 is away")
    assert json.loads(leveret("jobs", "errors", "--queue", "nosuch", "--json").stdout) == []
