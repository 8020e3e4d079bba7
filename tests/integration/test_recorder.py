"""The recorder: from the broker's queues to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.recorders import Ledger, RecorderProcess, migrated

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def ledger_url(database: str) -> str:
    """Return the URL of a database with the schema."""
    return migrated(database)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """Return the rows."""
    found = Ledger(ledger_url)
    yield found
    found.close()


@pytest.fixture
def recorder(worker, vhost, ledger_url, tmp_path) -> Iterator[RecorderProcess]:
    """Return a recorder that is ready."""
    made = RecorderProcess(vhost.environment("recorder"), ledger_url, tmp_path)
    try:
        yield made.wait_ready()
        assert made.terminate() == 0, made.log
        assert "Traceback" not in made.log
    finally:
        made.kill()
        print(made.log)


def test_a_job_that_succeeds_is_a_row_with_all_that_was_published(worker, recorder, ledger):
    """What was published, and what became of it, stand in one row."""

    @worker.actor("work.do")
    def work(n):
        return {"n": n}

    worker.start()
    job_id = worker.send("work.do", {"n": 1}, correlation_id="order-7", priority=3)
    row = ledger.wait(job_id, "succeeded")
    assert (row["actor"], row["queue"], row["routing_key"]) == (
        "work.do",
        "default",
        "default.work.do",
    )
    assert bytes(row["body"]) == b'{"n":1}'
    assert (row["correlation_id"], row["priority"], row["attempt"], row["run"]) == (
        "order-7",
        3,
        1,
        0,
    )
    assert bytes(row["result"]) == b'{"n":1}'
    assert row["created_at"] == row["published_at"]
    assert row["published_at"] <= row["started_at"] <= row["finished_at"]
    assert row["worker"] == worker.worker.id
    (attempt,) = ledger.attempts(job_id)
    assert (attempt["outcome"], attempt["started_at"]) == ("succeeded", row["started_at"])
