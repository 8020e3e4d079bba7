"""The actors of the frozen jobs: what they do is the same in every release."""

from __future__ import annotations

import leveret


class NoLuckError(Exception):
    """What `note.fail` raises."""


@leveret.actor("note.keep")
def keep(text: str, n: int) -> dict[str, str]:
    """Return what it was given."""
    return {"kept": f"{text} {n}"}


@leveret.actor("note.fail", max_retries=0)
def fail(text: str, n: int) -> str:
    """Fail, until the job is replayed."""
    job = leveret.current_job()
    assert job is not None
    if not job.run:
        raise NoLuckError(f"{text} {n}")
    return "at last"
