"""Checkpoints: how far a job has come, kept in PostgreSQL for its next attempt.

Actors write and read them through `leveret.current_job()`. The last one written counts, whichever
attempt wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leveret.message import plain, storable
from leveret.store.connections import Connections

__all__ = ["MAX_CHECKPOINT_BYTES", "Checkpoints"]

#: The largest checkpoint. Larger things belong into a storage, and their address into it.
MAX_CHECKPOINT_BYTES = 64 * 1024

_encode = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=plain
).encode

_READ = "SELECT data FROM checkpoints WHERE job_id = %s"
_WRITE = (
    "INSERT INTO checkpoints (job_id, data, updated_at) VALUES (%s, %s, clock_timestamp())"
    " ON CONFLICT (job_id) DO UPDATE SET data = EXCLUDED.data, updated_at = EXCLUDED.updated_at"
)
_FORGET = "DELETE FROM checkpoints WHERE job_id = ANY(%s)"


class Checkpoints:
    """The table of checkpoints. Thread-safe."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Return the last checkpoint of a job; raises `DatabaseUnavailable`."""
        rows = self._connections.run(_READ, (storable(job_id),))
        return json.loads(rows[0][0]) if rows else None

    def write(self, job_id: str, data: Mapping[str, Any]) -> None:
        """Replace the checkpoint of a job; it is durable when this returns.

        Raises `ValueError` for what is not a JSON object of at most 64 KiB, and
        `DatabaseUnavailable`.
        """
        if not isinstance(data, Mapping):
            raise ValueError(  # noqa: TRY004 - one kind of error for all that is no checkpoint
                f"a checkpoint is a mapping of names to values, not {type(data).__name__}"
            )
        try:
            text = _encode(dict(data)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the checkpoint cannot be written as JSON: {error}") from None
        if len(text) > MAX_CHECKPOINT_BYTES:
            raise ValueError(
                f"the checkpoint takes {len(text)} bytes, and {MAX_CHECKPOINT_BYTES} are the "
                "limit; put the data into a storage and its address into the checkpoint"
            )
        self._connections.run(_WRITE, (storable(job_id), text))

    def forget(self, job_ids: Sequence[str]) -> None:
        """Delete the checkpoints of jobs that have ended well; raises `DatabaseUnavailable`."""
        self._connections.run(_FORGET, ([storable(job_id) for job_id in job_ids],))

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()
