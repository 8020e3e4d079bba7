"""`python -m compose.native up|down|clean|status`: the stack of this checkout.

`python -m compose.native install PACKAGE…` installs what a test needs from Debian's packages.
"""

from __future__ import annotations

import argparse
import sys
import time

from compose.native.errors import StackError
from compose.native.install import ensure_apt
from compose.native.paths import Checkout
from compose.native.stack import Stack
from leveret.errors import LeveretError


def main() -> int:
    """Run one command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m compose.native", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "clean", "status", "install"))
    parser.add_argument("packages", nargs="*", help="for install: names of Debian packages")
    arguments = parser.parse_args()
    command: str = arguments.command
    began = time.monotonic()
    try:
        if command == "install":
            ensure_apt(arguments.packages, "what you asked for")
            return 0
        stack = Stack(Checkout.here())
        match command:
            case "up":
                stack.up()
                print(f"ready after {time.monotonic() - began:.1f} s")
            case "down":
                stack.down()
            case "clean":
                stack.clean()
            case _:
                for part, state in stack.status():
                    print(f"{part + ':':18} {state}")
    except (StackError, LeveretError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
