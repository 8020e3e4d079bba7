"""The job that the calling code is running."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any, Protocol

from leveret.errors import ConfigurationError, LeveretError
from leveret.message import Job

__all__ = ["Notebook", "Report", "Run", "RunningJob", "current_job"]


class Notebook(Protocol):
    """Where checkpoints are kept."""

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Return the last checkpoint of a job."""
        ...

    def write(self, job_id: str, data: Mapping[str, Any]) -> None:
        """Replace the checkpoint of a job; it is durable when this returns."""
        ...


class Run:
    """What a worker keeps of one run while it lasts."""

    __slots__ = ("_view", "admission", "job", "notebook", "noted", "reported", "told")

    def __init__(
        self, job: Job, *, notebook: Notebook | None = None, admission: object = None
    ) -> None:
        self.job = job
        self.notebook = notebook
        #: What `leveret.claims` knows of the run; None for a plain job.
        self.admission = admission
        #: Whether the job has, or may have, a checkpoint.
        self.noted = False
        #: How far the job has come, as its actor said last, and what of it has been passed on.
        self.reported: Report | None = None
        self.told: Report | None = None
        self._view: RunningJob | None = None

    @property
    def view(self) -> RunningJob:
        """The job as its actor sees it; made when it first asks."""
        if self._view is None:
            self._view = RunningJob.of(self)
        return self._view


@dataclass(frozen=True, slots=True)
class Report:
    """How far a job has come."""

    #: From 0 to 1.
    progress: float
    note: str | None
    #: When it was said (seconds since 1970).
    at: float


class RunningJob(Job):
    """The job that is running: all that `leveret.message.Job` has, and what the run may do.

    Its methods may be called from any thread while the actor runs.
    """

    __slots__ = ("_run",)

    _run: Run | None

    @classmethod
    def of(cls, run: Run) -> RunningJob:
        """Return the view of a run."""
        made = object.__new__(cls)
        for name in _FIELDS:
            object.__setattr__(made, name, getattr(run.job, name))
        object.__setattr__(made, "_run", run)
        return made

    @property
    def checkpointed(self) -> dict[str, Any] | None:
        """What `checkpoint` was last given, in this attempt or an earlier one; None for nothing.

        Read from the database at each use. Raises `DatabaseUnavailable`.
        """
        notebook, run = self._notebook()
        run.noted = True
        return notebook.read(self.id)

    def checkpoint(self, data: Mapping[str, Any]) -> None:
        """Write down how far the job has come, for its next attempt; it replaces what was there.

        ``data`` is a JSON object of at most 64 KiB. When this returns, it survives the death of
        this process and of the database. It is deleted when the job has succeeded. Blocks for
        a round trip to the database: in a coroutine,
        ``await asyncio.to_thread(job.checkpoint, data)``. Raises `ValueError` for what is no such
        object, and `DatabaseUnavailable`.
        """
        notebook, run = self._notebook()
        run.noted = True
        notebook.write(self.id, data)

    def progress(self, value: float, note: str | None = None) -> None:
        """Say how far the job has come, from 0 to 1, and what it is doing: ``(0.4, "page 12")``.

        It is seen in the ledger within a second. Returns at once and may be called as often as one
        likes: what comes faster than ten times a second is left out, but never the last. A value
        outside of 0 to 1 counts as the nearer end, a note has at most 500 characters; raises
        `ValueError` for what is no number.
        """
        run = self._own_run()
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isnan(number):
            raise ValueError(f"progress is a number from 0 to 1, not {value!r}")
        if note is not None:
            text = str(note).replace("\0", "").encode(errors="backslashreplace").decode()
            note = text[:_MAX_NOTE]
        run.reported = Report(min(1.0, max(0.0, number)), note, time.time())

    def _notebook(self) -> tuple[Notebook, Run]:
        run = self._own_run()
        if run.notebook is None:
            raise ConfigurationError(
                "checkpoints are kept in PostgreSQL, and this worker has no LEVERET_DATABASE_URL"
            )
        return run.notebook, run

    def _own_run(self) -> Run:
        run: Run | None = getattr(self, "_run", None)
        if run is None:
            raise LeveretError(
                f"job {self.id} is a copy that does not run; ask current_job() in the actor"
            )
        return run


#: Characters of a note that are kept.
_MAX_NOTE = 500

_FIELDS = tuple(field.name for field in fields(Job))

running: ContextVar[Run | None] = ContextVar("leveret_running_job", default=None)


def current_job() -> RunningJob | None:
    """Return the job that runs in this thread or coroutine; None outside of a run.

    It has the job's ``id``, ``actor``, ``queue``, ``attempt``, ``idempotency_key``,
    ``correlation_id`` and the rest of `leveret.message.Job`, and keeps its checkpoints.
    """
    run = running.get()
    return None if run is None else run.view
