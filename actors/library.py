"""The large libraries that some jobs work with, imported when a job first needs them.

Declaring an actor needs none of them: processes that only have to know the actors (the API, the
scheduler, ``leveret topology``) stay small and start fast, and run from an image that lacks them.

::

    if TYPE_CHECKING:
        import duckdb
    else:
        duckdb = library("duckdb")
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from actors.error import ActorSettingsError

__all__ = ["library"]


class _Library(ModuleType):
    """Stands for a module until something of it is asked for. Thread-safe, as imports are."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what only looks at the module does not need it
            raise AttributeError(name)
        try:
            module = import_module(self.__name__)
        except ModuleNotFoundError as error:
            raise ActorSettingsError(
                f"this job needs {error.name!r}, which is not installed here: run its queue where "
                "the group `services` is, as in the image leveret-actors"
            ) from error
        return getattr(module, name)


def library(name: str) -> ModuleType:
    """Return the module ``name``, which is imported when something of it is first asked for.

    Raises then `ActorSettingsError` where it is not installed.
    """
    return _Library(name)
