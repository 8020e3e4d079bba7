"""What a tracer provider does wrong is not the jobs' business."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["unless_broken"]

log = logging.getLogger("leveret.tracing")

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

#: What has been said, once.
_told: set[str] = set()
_MOST_TOLD = 100


def unless_broken(
    otherwise: Callable[[], U],
) -> Callable[[Callable[P, T]], Callable[P, T | U]]:
    """Return ``otherwise()`` where a function raises, and say so once.

    Samplers, processors and propagators are anybody's, and run where a job, or the connection,
    would end with them.
    """

    def around(function: Callable[P, T]) -> Callable[P, T | U]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T | U:
            try:
                return function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - see above
                where = f"{function.__qualname__}: {type(error).__name__}: {str(error)[:200]}"
                if where not in _told and len(_told) < _MOST_TOLD:
                    _told.add(where)
                    log.warning("a span is lost, and those like it will be, too (%s)", where)
                return otherwise()

        return call

    return around
