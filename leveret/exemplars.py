"""Exemplars: the id of a trace beside a count, so that a graph leads to a job that made it so.

prometheus_client keeps them, but not in a process that shares its counts with others through files
(``PROMETHEUS_MULTIPROC_DIR``). There they are kept here, the latest of each bucket or counter,
until the process hands them over with `take`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from prometheus_client import values

from leveret.message.trace import read_traceparent

__all__ = ["Exemplar", "exemplar_of", "in_files", "share", "take"]

_TRACE_ID = slice(3, 35)
_FLAGS = slice(53, 55)
_SAMPLED = 0x01


class Exemplar(NamedTuple):
    """An exemplar, and the sample that it belongs to; JSON can write it."""

    sample: str
    sample_labels: Mapping[str, str]
    labels: Mapping[str, str]
    value: float
    #: Seconds since 1970.
    at: float


def exemplar_of(traceparent: str | None) -> dict[str, str] | None:
    """Return the exemplar of a job with this ``traceparent``.

    None if it names no trace, or one that is not sampled, and so is kept nowhere.
    """
    found = read_traceparent(traceparent)
    if found is None or not int(found[_FLAGS], 16) & _SAMPLED:
        return None
    return {"trace_id": found[_TRACE_ID]}


def in_files() -> bool:
    """Tell whether this process shares its counts with others through files."""
    kind: Any = values.ValueClass
    return bool(kind._multiprocess)  # noqa: SLF001


#: By the value that they belong to. One that is not taken is replaced by the next.
_fresh: dict[Any, Any] = {}
#: Held by whoever counts, and while the process forks.
_counting = threading.RLock()


def share() -> None:
    """Have metrics that are defined from now on keep exemplars, where they are files.

    They then also survive a fork, by an actor say: one lock guards all values that are files, and
    if another thread held it just then, it would be held in the child for ever.
    """
    files: Any = values.ValueClass
    if not in_files() or hasattr(files, "keeps_exemplars"):
        return

    class Value(files):  # type: ignore[misc]
        keeps_exemplars = True

        def inc(self, amount: float) -> None:
            with _counting:
                super().inc(amount)

        def set(self, value: float, timestamp: float | None = None) -> None:
            with _counting:
                super().set(value, timestamp)

        def set_exemplar(self, exemplar: Any) -> None:
            _fresh[self] = exemplar

    values.ValueClass = Value
    os.register_at_fork(
        before=_counting.acquire,
        after_in_parent=_counting.release,
        after_in_child=_counting.release,
    )


def take(most: int) -> list[Exemplar]:
    """Return exemplars that were not taken yet, at most so many. Thread-safe."""
    found: list[Exemplar] = []
    while len(found) < most:
        try:
            value, exemplar = _fresh.popitem()
        except KeyError:
            break
        _, _, sample, names, of, *_ = value._params  # noqa: SLF001
        found.append(
            Exemplar(
                sample,
                dict(zip(names, of, strict=True)),
                exemplar.labels,
                exemplar.value,
                exemplar.timestamp,
            )
        )
    return found
