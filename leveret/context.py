"""The job that the calling code is running."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import fields
from typing import Any, Protocol

from leveret.errors import ConfigurationError, LeveretError
from leveret.message import Job

__all__ = ["Notebook", "Run", "RunningJob", "current_job"]


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

    __slots__ = ("_view", "job", "notebook", "noted")

    def __init__(self, job: Job, *, notebook: Notebook | None = None) -> None:
        self.job = job
        self.notebook = notebook
        #: Whether the job has, or may have, a checkpoint.
        self.noted = False
        self._view: RunningJob | None = None

    @property
    def view(self) -> RunningJob:
        """The job as its actor sees it; made when it first asks."""
        if self._view is None:
            self._view = RunningJob.of(self)
        return self._view


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

    def _notebook(self) -> tuple[Notebook, Run]:
        run: Run | None = getattr(self, "_run", None)
        if run is None:
            raise LeveretError(
                f"job {self.id} is a copy that does not run; ask current_job() in the actor"
            )
        if run.notebook is None:
            raise ConfigurationError(
                "checkpoints are kept in PostgreSQL, and this worker has no LEVERET_DATABASE_URL"
            )
        return run.notebook, run


_FIELDS = tuple(field.name for field in fields(Job))

running: ContextVar[Run | None] = ContextVar("leveret_running_job", default=None)


def current_job() -> RunningJob | None:
    """Return the job that runs in this thread or coroutine; None outside of a run.

    It has the job's ``id``, ``actor``, ``queue``, ``attempt``, ``idempotency_key``,
    ``correlation_id`` and the rest of `leveret.message.Job`, and keeps its checkpoints.
    """
    run = running.get()
    return None if run is None else run.view
