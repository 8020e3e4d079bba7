"""A module of somebody else, as mypy sees what leveret says of its types."""

from __future__ import annotations

from typing import assert_type

import leveret
from leveret import Job, Publisher, Receipt, outbox, results


@leveret.actor("invoice.print", queue="bulk", max_retries=3)
def print_invoice(number: int, copies: int = 1) -> str:
    """Print an invoice."""
    job = leveret.current_job()
    if job is not None:
        assert_type(job.attempt, int)
        job.progress(0.5, "half of it")
    return f"{copies} of {number}"


def order(publisher: Publisher, connection: object) -> str:
    """Publish in three ways."""
    assert_type(publisher.send("invoice.print", {"number": 1}), str)
    assert_type(publisher.publish(print_invoice, {"number": 1}, delay=5), Receipt)
    assert_type(Job(actor="invoice.print", id="1").attempt, int)
    results.wait("1", timeout=5)
    return outbox.enqueue(connection, "invoice.print", {"number": 1})


def wrong() -> None:
    """Do what the types refuse; strict mypy complains of an ignore that is not needed."""
    outbox.enqueue(None)  # type: ignore[call-arg]
