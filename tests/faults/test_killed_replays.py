"""Replays whose runner is killed: each dead letter goes into the outbox once, none is forgotten."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from leveret.deadletters import Selection, create_replay, get_replay
from tests.support import letters
from tests.support.letters import WHO, put
from tests.support.pages import ROOT
from tests.support.replaying import BATCH, POINTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

pytestmark = pytest.mark.faults

TOTAL = 500


@pytest.fixture(scope="module")
def store(database) -> Iterator[Engine]:
    """Return the engine of a migrated database."""
    with letters.ledger(database) as engine:
        yield engine


@contextmanager
def a_runner(url, *point) -> Iterator[subprocess.Popen]:
    """Replay in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.replaying", url, *point],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def replay(engine):
    """Store dead letters of 500 jobs in two groups, and create a replay of all."""
    letters.clear(engine)
    with engine.begin() as connection:
        jobs = set()
        for n in range(TOTAL):
            letter_id = put(connection, {"n": n}, fingerprint=f"f{n % 2}")
            jobs.add(letters.letter(connection, letter_id).job_id)
        made = create_replay(connection, Selection(), requested_by=WHO)
    return made, jobs


def assert_each_once(engine, made, jobs):
    """Check the outbox, the dead letters, their jobs and every count."""
    with engine.connect() as connection:
        rows = letters.outbox(connection)
        assert len(rows) == TOTAL
        assert {row.job_id for row in rows} == jobs
        found = get_replay(connection, made.id)
        assert (found.total, found.published, found.refused) == (TOTAL, TOTAL, 0)
        for name in ("f0", "f1"):
            group = letters.group(connection, name)
            assert (group.total, group.open, group.replayed) == (TOTAL // 2, 0, TOTAL // 2)
        counts = connection.execute(
            text(
                "SELECT (SELECT count(*) FROM dead_letters WHERE state = 'replayed'),"
                " (SELECT count(*) FROM jobs WHERE state = 'queued' AND run = 1)"
            )
        ).one()
        assert tuple(counts) == (TOTAL, TOTAL)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_runner_neither_repeats_nor_forgets(store, database, point):
    """Killed at any point of a batch; another goes on from there."""
    made, jobs = replay(store)
    with a_runner(database, point) as dying:
        assert dying.wait(60) == -signal.SIGKILL
    with store.connect() as connection:
        batches = 3 if point == "committed" else 2
        assert get_replay(connection, made.id).published == batches * BATCH
    with a_runner(database):
        letters.wait_done(store, made.id)
    assert_each_once(store, made, jobs)


def test_runners_at_work_together_do_each_letter_once(store, database):
    """The row of the replay is locked while one of them works on it."""
    made, jobs = replay(store)
    with a_runner(database), a_runner(database):
        letters.wait_done(store, made.id)
    assert_each_once(store, made, jobs)
