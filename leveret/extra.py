"""What an extra brings, and is missing: said with the extra's name, where it is first imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["brought_by"]


@contextmanager
def brought_by(extra: str, module: str) -> Iterator[None]:
    """Import within this what ``leveret[extra]`` brings, for a module of ours.

    Raises `ImportError` saying what to install when a package is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "leveret":
            raise  # nothing that an extra could bring
        raise ImportError(
            f"{module} needs {error.name!r}; install leveret[{extra}]", name=error.name
        ) from error
