"""Schedules in a file, TOML, for what belongs to a deployment and not to an actor's code.

::

    [schedules.nightly-report]
    actor = "report.build"
    cron = "0 3 * * *"
    tz = "Europe/Lisbon"
    arguments = { of = "yesterday" }

``LEVERET_SCHEDULES`` names the files. `leveret.schedules.form` has the fields.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from leveret.errors import ConfigurationError, InvalidSchedule
from leveret.message import MAX_BODY_BYTES
from leveret.schedules.check import check
from leveret.schedules.definition import Definition
from leveret.schedules.form import read

__all__ = ["load"]

_TABLE = "schedules"


def load(path: str | Path, *, limit: int = MAX_BODY_BYTES) -> list[Definition]:
    """Read the schedules of a file, in their order; ``limit`` is the largest body of a job.

    Raises `ConfigurationError` naming the file, the table and the key that is wrong.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"LEVERET_SCHEDULES names {path}, which cannot be read: {reason}"
        ) from None
    except ValueError as error:  # TOML's, and that of UTF-8
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    for key in document:
        if key != _TABLE:
            raise ConfigurationError(
                f"{path}: there is no table {key!r}; a schedule is a table [{_TABLE}.<name>]"
            )
    tables = document.get(_TABLE, {})
    if not isinstance(tables, Mapping):
        raise ConfigurationError(f"{path}: {_TABLE} holds tables, [{_TABLE}.<name>]")
    found = []
    for name, table in tables.items():
        where = f"{path}, table [{_TABLE}.{_quoted(name)}]"
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{where}: it is a table, with a key actor and others")
        try:
            definition = read(name, table)
            check(definition, limit=limit)
        except InvalidSchedule as error:
            raise ConfigurationError(f"{where}: {error}") from None
        found.append(definition)
    return found


def _quoted(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else f'"{name}"'
