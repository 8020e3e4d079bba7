"""Run what must pass before a change is merged, gate after gate, and sum up at the end.

A gate is a target of the Makefile. The first that fails ends the run: what comes after it is not
tried. The tests are gates of their own (`tests/support/gates.py`), and report to a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "build" / "gates.json"


def main(targets: list[str]) -> int:
    """Run the targets; return 1 when one has failed."""
    TESTS.unlink(missing_ok=True)
    lines: list[tuple[str, str, str]] = []
    failed = False
    begin = time.monotonic()
    for target in targets:
        if failed:
            lines.append((target, "not run", ""))
            continue
        print(f"\n=== {target}", flush=True)
        started = time.monotonic()
        status = subprocess.run(
            ["make", target],  # noqa: S607 - the make that runs this
            cwd=ROOT,
            env={**os.environ, "LEVERET_GATES": str(TESTS)},
            check=False,
        ).returncode
        failed = status != 0
        lines.append((target, "FAILS" if failed else "holds", f"{time.monotonic() - started:.0f}"))
    lines += tests()
    lines.append(("all", "FAILS" if failed else "holds", f"{time.monotonic() - begin:.0f}"))
    print("\n=== gates, and the seconds that each took")
    for name, word, seconds in lines:
        print(f"{name:48} {word:8} {seconds:>5}")
    return int(failed)


def tests() -> list[tuple[str, str, str]]:
    """Return how the gates among the tests went; they run side by side, so the times overlap."""
    if not TESTS.exists():
        return []
    return [
        (f"  {name}", "holds" if found["holds"] else "FAILS", f"{found['seconds']:.0f}")
        for name, found in sorted(json.loads(TESTS.read_text()).items())
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
