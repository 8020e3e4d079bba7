"""A connection that waits for an answer for so long, and no longer.

A server that has stopped (its machine is suspended, its disk hangs) keeps its connections: its
kernel acknowledges what is sent, so that neither keepalives nor a statement timeout, which is the
server's to enforce, ever end a statement. Here the client does.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

__all__ = ["BoundedConnection", "NoAnswer"]

T = TypeVar("T")


class NoAnswer(psycopg.OperationalError):
    """The server was silent for too long; nobody knows whether it will still run the statement."""


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """Raises `NoAnswer`, and is closed, when the server is silent for `answer_seconds`.

    For single statements that take milliseconds, not for those that may have to think for long.
    """

    answer_seconds = 20.0

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Wait for the server's part of an operation, as psycopg has it."""
        try:
            return super().wait(_until(gen, self.answer_seconds), *args, **options)
        except NoAnswer:
            self.close()
            raise


def _until(gen: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """Resume a generator of psycopg until nothing has come for so long.

    Whoever runs it resumes it ten times a second, also when there is nothing to read.
    """
    end = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                end = time.monotonic() + seconds
            elif time.monotonic() >= end:
                raise NoAnswer(f"the database has not answered for {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as stop:
        answer: T = stop.value
        return answer
