"""The command ``leveret``. Tables for people, ``--json`` for programs, exit codes for scripts.

Exit status: 0 when all is well, 1 when the answer is no (drift was found, a job was refused), 2
when the command line or a setting is wrong.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command."""
    try:
        from leveret.cli.app import app  # noqa: PLC0415 - its packages are an extra
    except ModuleNotFoundError as error:
        print(f"the leveret command needs {error.name!r}; install leveret[cli]", file=sys.stderr)
        sys.exit(2)
    app()
