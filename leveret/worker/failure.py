"""Writing an exception down, quickly.

`traceback.format_exception` compiles source lines to point at the column, and looks at the file
system for each frame. A retry storm is no time for that: here a frame is its place and its line.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from types import TracebackType

__all__ = ["describe", "frames_of", "kind_of", "message_of"]

_MAX_MESSAGE = 2_000
_MAX_FRAMES = 40
_MAX_CAUSES = 5
#: Modules whose frames lead to the actor, and say nothing about its failure.
_OURS = ("leveret.worker.executor", "leveret.worker.timelimit")


def kind_of(error: BaseException) -> str:
    """Name the exception's class in full."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """Return the exception's text, of bounded length."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception may fail at describing itself
        text = f"({type(error).__name__} has no text)"
    return text[:_MAX_MESSAGE]


def frames_of(error: BaseException) -> Iterator[tuple[str, int, str]]:
    """Yield the frames from the actor to where it failed: file, line number, function."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_globals.get("__name__") not in _OURS:
            yield frame.f_code.co_filename, trace.tb_lineno, frame.f_code.co_qualname
        trace = trace.tb_next


def describe(error: BaseException) -> dict[str, str]:
    """Write an exception down: ``type``, ``message`` and ``traceback``."""
    try:
        trace = _trace(error)
    except Exception:  # noqa: BLE001 - as its text may fail, so may its causes
        trace = f"(the traceback of {type(error).__name__} cannot be written)"
    return {"type": kind_of(error), "message": message_of(error), "traceback": trace}


def _trace(error: BaseException) -> str:
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < _MAX_CAUSES:
        seen.add(id(current))
        frames = list(frames_of(current))
        lines = ["Traceback (most recent call last):"] if frames else []
        if len(frames) > _MAX_FRAMES:
            lines.append(f"  ({len(frames) - _MAX_FRAMES} frames are left out)")
        for file, number, function in frames[-_MAX_FRAMES:]:
            lines.append(f'  File "{file}", line {number}, in {function}')
            source = linecache.getline(file, number).strip()
            if source:
                lines.append(f"    {source}")
        lines.append(f"{kind_of(current)}: {message_of(current)}")
        parts.append("\n".join(lines))
        if current.__cause__ is not None:
            current = current.__cause__
        else:
            current = None if current.__suppress_context__ else current.__context__
    return "\n\nwhich led to:\n\n".join(reversed(parts))
