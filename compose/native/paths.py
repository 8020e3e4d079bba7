"""Where a checkout's stack keeps its files.

Everything is under `.stack/`. The servers' data is in `.stack/data`, which is a link to a private
directory elsewhere when the servers run as `nobody` and that account may not enter one of the
checkout's parent folders (`/root` is one that it may not).
"""

from __future__ import annotations

import hashlib
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from compose.native.accounts import Account
from compose.native.errors import StackError

#: Survives a restart of the machine, unlike `/tmp` and `/run`.
ELSEWHERE = Path("/var/tmp")  # noqa: S108 - the directory in it is private and its owner is checked


@dataclass(frozen=True)
class Checkout:
    """The files of the stack that belongs to the working tree at `root`."""

    root: Path

    @classmethod
    def here(cls) -> Checkout:
        """Return the checkout that this file is in."""
        return cls(Path(__file__).resolve().parents[2])

    @property
    def key(self) -> str:
        """Eight hexadecimal digits that tell this checkout from others on the machine."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    @property
    def stack(self) -> Path:
        """The directory of everything that the stack writes."""
        return self.root / ".stack"

    @property
    def data(self) -> Path:
        """The directory (or a link to it) of the servers' data."""
        return self.stack / "data"

    @property
    def log(self) -> Path:
        """The directory of the processes' output."""
        return self.stack / "log"

    @property
    def env(self) -> Path:
        """The environment of a client that publishes jobs."""
        return self.stack / "env"

    @property
    def env_d(self) -> Path:
        """The directory of each role's environment, `<role>.env`."""
        return self.stack / "env.d"

    @property
    def demo_mark(self) -> str:
        """The mark of the demonstration's workers, which end with it or with the stack."""
        return f"demo:{self.stack}"

    @property
    def passwords(self) -> Path:
        """The generated passwords."""
        return self.stack / "passwords.json"

    def open(self) -> Path:
        """Create the directories where they are missing; return the one for data, resolved."""
        account = Account.for_servers()
        self.stack.mkdir(exist_ok=True)
        self.stack.chmod(0o700 if account.uid is None else 0o711)
        for directory in (self.log, self.env_d):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o700)
        if self.data.is_symlink() and not self.data.exists():
            self.data.unlink()
        if not self.data.exists():
            if account.uid is None or _everyone_may_enter(self.stack):
                private_directory(self.data)
            else:
                self.data.symlink_to(private_directory(ELSEWHERE / f"leveret-{self.key}"))
        return self.data.resolve()

    def new_scratch(self, label: str) -> Path:
        """Create an empty private directory for a server of a test; its server removes it.

        It is not in `.stack/`, so that nothing in the test's own path keeps the server out.
        """
        return private_directory(ELSEWHERE / f"leveret-{self.key}-{label}-{secrets.token_hex(4)}")

    def scratch(self) -> list[Path]:
        """Return the directories from `new_scratch` that still exist."""
        return sorted(ELSEWHERE.glob(f"leveret-{self.key}-*"))


def private_directory(path: Path) -> Path:
    """Create `path` for the servers' account alone, or check that it is that; return it.

    Raises `StackError` when it belongs to somebody else.
    """
    account = Account.for_servers()
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (account.owner, 0):
            raise StackError(
                f"{path} exists and does not belong to uid {account.owner}: "
                "move it away, then run `make up` again"
            ) from None
        path.chmod(0o700)
    account.give(path)
    return path


def _everyone_may_enter(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))
