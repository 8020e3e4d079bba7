"""What tells one job from another: its id, and the key of a unique one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time

__all__ = ["arguments_key", "job_time", "new_id"]

# Ids must be unique, not secret. A generator in the process costs a tenth of a microsecond; asking
# the kernel gives the interpreter lock away each time, and halves what one thread can publish.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


def new_id() -> str:
    """Make a job id: a UUIDv7 (RFC 9562), whose first 48 bits are the time in milliseconds.

    Thread-safe. Not a secret: who sees some ids may guess others.
    """
    now = time.time_ns()
    milliseconds, rest = divmod(now, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    tail = _random.getrandbits(62) | 0x8000_0000_0000_0000
    text = f"{milliseconds:012x}7{fraction:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def job_time(job_id: str) -> float | None:
    """Read the time out of an id that `new_id` made, in seconds since 1970; None for others."""
    if len(job_id) == 36 and job_id[14] == "7" and job_id[8] == "-":
        try:
            return int(job_id[:8] + job_id[9:13], 16) / 1000
        except ValueError:
            return None
    return None


def arguments_key(body: bytes) -> str:
    """Return the key of a unique job that was given none: a digest of its arguments.

    ``body`` is the job's, as JSON; the order of names and the blanks do not matter. Raises
    `ValueError` when it is no JSON.
    """
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
    return f"arguments:{hashlib.sha256(canonical.encode()).hexdigest()}"
