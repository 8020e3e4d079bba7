"""The job of a slot. Pure."""

from __future__ import annotations

from datetime import datetime

from leveret.message import Job
from leveret.outbox.row import read_options
from leveret.request import keyed
from leveret.schedules.definition import Definition, job_id

__all__ = ["APP_ID", "job_of"]

#: Who published it, as the job says.
APP_ID = "leveret-scheduler"


def job_of(definition: Definition, slot: datetime) -> Job:
    """Return the job of a slot: the same, whoever fires it, and how often.

    It is due at once: who fires it has waited for its time. Raises `InvalidJob` for options that
    no job has.
    """
    fields = {"app_id": APP_ID, **read_options(definition.options)}
    return keyed(
        Job(
            actor=definition.actor,
            arguments=definition.arguments,
            id=job_id(definition.name, slot),
            queue=definition.queue,
            schedule=definition.name,
            slot=slot,
            **fields,
        )
    )
