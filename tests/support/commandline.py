"""Running the commands of a page in one process: `python -m tests.support.commandline`.

Reads a script of ``leveret`` commands, and stops at the first that fails, with its exit status.
Loading the program once for each of them would take most of the time.
"""

from __future__ import annotations

import shlex
import sys

from typer.testing import CliRunner

from leveret.cli.app import app


def main() -> int:
    """Run the commands on standard input."""
    for line in sys.stdin.read().replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] != "leveret":
            raise SystemExit(f"not a command of ours: {line}")
        done = CliRunner().invoke(app, words[1:])
        sys.stdout.write(done.output)
        if done.exit_code:
            return done.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
