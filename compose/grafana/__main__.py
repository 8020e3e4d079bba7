"""Write the dashboards, or with ``--check`` name those that are stale."""

from __future__ import annotations

import sys

from compose.grafana.dashboards import FOLDER, files


def main() -> int:
    """Write what differs; with ``--check`` end with status 1 if anything does."""
    wanted, check = files(), "--check" in sys.argv[1:]
    there = set(FOLDER.glob("*.json"))
    differs = [
        path for path, text in wanted.items() if not path.exists() or path.read_text() != text
    ]
    found = [*differs, *sorted(there - wanted.keys())]
    for path in found:
        print(f"{'stale' if check else 'written'}: {path.relative_to(FOLDER.parents[2])}")
        if check:
            continue
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
