"""Compile the modules of folders, for a file system that is read-only afterwards.

The caches are checked by nobody at run time: the sources of an image do not change.
"""

from __future__ import annotations

import compileall
import py_compile
import sys


def main() -> None:
    """Compile the folders that the command line names."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for folder in sys.argv[1:]:
        if not compileall.compile_dir(folder, quiet=2, invalidation_mode=mode, workers=1):
            print(f"some modules of {folder} are for other Pythons and stay as they are")


if __name__ == "__main__":
    main()
