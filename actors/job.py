"""What an actor knows about the job that it runs for."""

from __future__ import annotations

from uuid import uuid4

import leveret

__all__ = ["delivery_key", "job_id"]


def job_id() -> str:
    """Return the id of the running job; outside a run, a new one."""
    job = leveret.current_job()
    return str(job.id) if job is not None else str(uuid4())


def delivery_key() -> str:
    """Return what a receiver can tell repeated deliveries by: the idempotency key, else the id."""
    job = leveret.current_job()
    return str(job.idempotency_key or job.id) if job is not None else str(uuid4())
