"""Checkpoints: what one attempt writes down, the next one reads."""

from __future__ import annotations

from datetime import timedelta

import leveret

SOON = leveret.Backoff(base=timedelta(seconds=0.1), jitter=False)


def test_the_next_attempt_goes_on_where_the_last_one_was(worker, ledger_database):
    """A checkpoint is handed back to the attempt after the one that failed."""

    @worker.actor("work.do", backoff=SOON)
    def work():
        job = leveret.current_job()
        page = (job.checkpointed or {"page": 0})["page"]
        worker.notes.append((job.attempt, page))
        job.checkpoint({"page": page + 1})
        if page < 2:
            raise ConnectionError("not yet")

    worker.start(database_url=ledger_database)
    job = worker.send("work.do")
    worker.records(job, "succeeded")
    assert worker.notes == [(1, 0), (2, 1), (3, 2)]
