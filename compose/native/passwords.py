"""Generated passwords, kept in one file of mode 600."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from compose.native.accounts import write_private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def ensure(file: Path, names: Iterable[str]) -> dict[str, str]:
    """Return a password for each name: the kept one, or a new one, which is kept in `file`."""
    try:
        known: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = {}
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: secrets.token_urlsafe(24) for name in missing}
        write_private(file, json.dumps(known, indent=1) + "\n")
    return known
