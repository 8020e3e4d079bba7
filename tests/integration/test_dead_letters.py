"""Dead letters in PostgreSQL: looked through, replayed into the outbox, discarded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from leveret.deadletters import Selection, cancel_replay, create_replay, discard, get_replay
from leveret.deadletters.runner import step
from leveret.deadletters.state import ReplayState
from leveret.errors import ReplayRefused
from tests.support import letters
from tests.support.letters import WHO, put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine


@pytest.fixture(scope="module")
def store(database) -> Iterator[Engine]:
    """Return the engine of a migrated database."""
    with letters.ledger(database) as engine:
        yield engine


@pytest.fixture
def engine(store) -> Engine:
    """Return the engine, its tables empty."""
    letters.clear(store)
    return store


def replay(engine, selection, **options):
    """Create a replay in a transaction of its own."""
    with engine.begin() as connection:
        return create_replay(connection, selection, requested_by=WHO, **options)


def run(engine, replay_id, **options):
    """Step until a replay is no longer running; return it."""
    for _ in range(10_000):
        step(engine, **options)
        with engine.connect() as connection:
            found = get_replay(connection, replay_id)
        if found.state is not ReplayState.RUNNING:
            return found
    raise TimeoutError(f"replay {replay_id} does not come to its end: {found}")


def test_a_replay_publishes_each_dead_letter_once_and_queues_its_job(engine):
    """The outbox has the original's bytes, the job is queued in its next run, all is counted."""
    with engine.begin() as connection:
        ids = [put(connection, {"n": n}) for n in range(3)]
        other = put(connection, actor="data.load", fingerprint="f2")
    made = replay(engine, Selection(actor="mail.send"))
    assert (made.total, made.published, made.state) == (3, 0, "running")
    done = run(engine, made.id)
    assert (done.total, done.published, done.refused, done.state) == (3, 3, 0, "done")
    with engine.connect() as connection:
        rows = letters.outbox(connection)
        assert [row.body for row in rows] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
        for letter_id, row in zip(ids, rows, strict=True):
            letter = letters.letter(connection, letter_id)
            assert (letter.state, letter.resolved_by, letter.new_job_id) == ("replayed", WHO, None)
            assert (row.job_id, row.actor, row.routing_key) == (
                letter.job_id,
                "mail.send",
                "any.mail.send",
            )
            properties = letters.read_properties(row)
            assert properties.message_id == letter.job_id
            assert properties.headers == {"x-leveret-attempt": 1, "x-leveret-run": 1}
            job = letters.job(connection, letter.job_id)
            assert (job.state, job.run, job.attempt, job.settled) == ("queued", 1, 1, 0)
            assert (job.reason, job.error, job.finished_at) == (None, None, None)
        assert letters.letter(connection, other).state == "open"
        counts = letters.group(connection)
        assert (counts.total, counts.open, counts.replayed) == (3, 0, 3)
    assert step(engine) > 0


def test_discard_and_cancel(engine):
    """What a replay has is not discarded; when it is cancelled, it is open again."""
    with engine.begin() as connection:
        ids = [put(connection) for n in range(3)]
    made = replay(engine, Selection(ids=tuple(ids[:2])))
    with engine.begin() as connection:
        assert discard(connection, Selection(), by=WHO) == 1
        cancel_replay(connection, made.id, by=WHO)
        with pytest.raises(ReplayRefused):
            cancel_replay(connection, made.id, by=WHO)
