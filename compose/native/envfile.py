"""Environment files: one `NAME=value` a line, which a shell can source as well."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from compose.native.accounts import write_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write(file: Path, variables: Mapping[str, str]) -> None:
    """Write the variables to `file`, mode 600."""
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    write_private(file, "".join(lines))


def read(file: Path) -> dict[str, str]:
    """Return the variables of an environment file."""
    variables: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.removeprefix("export ").partition("=")
            variables[name] = "".join(shlex.split(value))
    return variables
