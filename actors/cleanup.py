"""``storage.cleanup``: deleting what has become old in one folder of the storage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

import leveret
from actors.error import DEAD_ON, RETRY_ON, ActorArgumentError
from actors.report import Reference
from actors.storage import storage

__all__ = ["cleanup"]


@leveret.actor(
    "storage.cleanup",
    queue="scheduled",
    time_limit=timedelta(minutes=30),
    max_retries=3,
    backoff=leveret.Backoff(base=timedelta(minutes=1), cap=timedelta(hours=1)),
    retry_on=RETRY_ON,
    dead_on=DEAD_ON,
)
def cleanup(
    *,
    prefix: Reference,
    older_than: Annotated[timedelta, Field(ge=timedelta(minutes=1))],
    dry_run: bool = False,
    max_count: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000,
) -> dict[str, Any]:
    """Delete the files below the folder ``prefix`` that were last written before ``older_than``.

    ``older_than`` is an age: seconds, or ISO 8601 such as ``P30D``. At most ``max_count`` files are
    deleted, and ``complete`` in the result says whether that was all. ``dry_run`` only counts. The
    storage's root is never a prefix. Empty folders stay. Files that somebody else deletes meanwhile
    count as matched, not as deleted.
    """
    files = storage()
    if not prefix.strip("/. "):
        raise ActorArgumentError(
            f"{prefix!r} is the whole storage: name a folder inside it, such as reports"
        )
    before = datetime.now(UTC) - older_than
    examined = matched = deleted = freed = 0
    complete = True
    for entry in files.files(prefix):
        examined += 1
        if entry.modified >= before:
            continue
        if matched == max_count:
            complete = False
            break
        matched += 1
        if not dry_run and files.delete(entry.path):
            deleted += 1
            freed += entry.bytes
    return {
        "examined": examined,
        "matched": matched,
        "deleted": deleted,
        "bytes": freed,
        "dry_run": dry_run,
        "complete": complete,
    }
