"""Which account the private servers run as: never root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: `nobody` and `nogroup`: an account that exists everywhere and owns nothing.
NOBODY_UID = 65534
NOBODY_GID = 65534


@dataclass(frozen=True, kw_only=True)
class Account:
    """The account of a private server; `uid` and `gid` are None for the current user."""

    uid: int | None
    gid: int | None

    @classmethod
    def for_servers(cls) -> Account:
        """Return `nobody` when we are root, else the current user."""
        if os.geteuid() == 0:
            return cls(uid=NOBODY_UID, gid=NOBODY_GID)
        return cls(uid=None, gid=None)

    @classmethod
    def current(cls) -> Account:
        """Return the current user, even root: for processes that read this checkout."""
        return cls(uid=None, gid=None)

    @property
    def owner(self) -> int:
        """The uid that files of this account have."""
        return os.geteuid() if self.uid is None else self.uid

    def give(self, path: Path) -> None:
        """Make this account the owner of `path`."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def write_private(self, path: Path, text: str) -> None:
        """Write a file that only this account (and root) can read."""
        write_private(path, text)
        self.give(path)


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path` at once, with mode 600 from its first byte on."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
