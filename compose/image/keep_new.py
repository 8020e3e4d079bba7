"""Keep of a folder only what another, older state of it lacks: `keep_new.py BEFORE NOW`.

So that a layer laid over the older state holds nothing twice.
"""

from __future__ import annotations

import filecmp
import sys
from pathlib import Path


def main() -> None:
    """Remove from the second folder what is the same in the first."""
    before, now = Path(sys.argv[1]), Path(sys.argv[2])
    for file in sorted(now.rglob("*"), reverse=True):
        old = before / file.relative_to(now)
        if file.is_symlink():
            if old.is_symlink() and old.readlink() == file.readlink():
                file.unlink()
        elif file.is_dir():
            if not any(file.iterdir()) and old.is_dir():
                file.rmdir()
        elif old.is_file() and filecmp.cmp(old, file, shallow=False):
            file.unlink()


if __name__ == "__main__":
    main()
