"""Logs of the processes: structlog, one line for each transition of a job.

JSON in a container, colours on a terminal. Arguments of jobs are never logged. What libraries log
through `logging` comes out in the same form.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import structlog

__all__ = ["configure"]

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(level: str = "info", style: str = "auto") -> None:
    """Send logs to standard error; ``style`` is json, console, or auto (by whether it is a tty)."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = (
        # Not the default, which shows the values of variables: arguments of jobs among them.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(serializer=_dumps)
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    tail = [renderer] if console else [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*_SHARED, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *tail,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for chatty in ("apscheduler", "dramatiq", "httpx", "pika"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))


_encode = json.JSONEncoder(separators=(",", ":"), default=repr, ensure_ascii=False).encode


def _dumps(event: Any, **_options: Any) -> str:
    return _encode(event)
