"""The envelope of stock Dramatiq, whose body carries all of a job."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from leveret.errors import InvalidJob
from leveret.message.job import Job, actor_name
from leveret.message.reason import Reason

__all__ = ["ENVELOPE", "read_envelope"]

#: What the body of a stock Dramatiq broker has.
ENVELOPE = frozenset({"actor_name", "queue_name", "args", "kwargs", "options", "message_id"})


def read_envelope(document: dict[str, Any], fields: dict[str, Any]) -> Job:
    """Read a job that a stock Dramatiq broker published."""

    def check(name: str, kind: type | tuple[type, ...], wanted: str) -> Any:
        value = document.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidJob(
                Reason.BAD_ENVELOPE,
                f"{name} in the Dramatiq envelope is {wanted}, not {str(value)[:200]!r}",
            )
        return value

    job_id = check("message_id", str, "a string")
    options = check("options", dict, "an object")
    if not 0 < len(job_id.encode(errors="replace")) <= 255:
        raise InvalidJob(Reason.BAD_ENVELOPE, "message_id has 1 to 255 bytes")
    check("queue_name", str, "a string")
    eta = options.get("eta")
    if eta is not None:
        if type(eta) not in (int, float) or not (math.isfinite(eta) and 0 <= eta < 253402300800e3):
            raise InvalidJob(
                Reason.BAD_ENVELOPE, f"options.eta is a time in milliseconds, not {eta!r}"
            )
        fields["due_at"] = datetime.fromtimestamp(eta / 1000, UTC)
    retries = options.get("retries", 0)
    if type(retries) is not int or not 0 <= retries < 100_000:
        raise InvalidJob(
            Reason.BAD_ENVELOPE, f"options.retries is a whole number, not {str(retries)[:200]!r}"
        )
    fields.setdefault("attempt", retries + 1)
    return Job(
        actor=actor_name(check("actor_name", str, "a string")),
        arguments=check("kwargs", dict, "an object"),
        positional=tuple(check("args", list, "an array")),
        id=job_id,
        **fields,
    )
