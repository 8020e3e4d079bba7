"""The job that the calling code is running."""

from __future__ import annotations

from contextvars import ContextVar

from leveret.message import Job

__all__ = ["current_job"]

running: ContextVar[Job | None] = ContextVar("leveret_running_job", default=None)


def current_job() -> Job | None:
    """Return the job that runs in this thread or coroutine; None outside of a run.

    It has the job's ``id``, ``actor``, ``queue``, ``attempt``, ``idempotency_key``,
    ``correlation_id`` and the rest of `leveret.message.Job`.
    """
    return running.get()
