"""``python -m tests.releases freeze``: write the folder of this tree's version anew.

``check`` tells what is to be done before this tree can be released, and ends with status 1 if there
is something.
"""

from __future__ import annotations

import sys

from tests.releases import checklist, database, frozen


def main() -> int:
    """Do what the command line says."""
    match sys.argv[1:]:
        case ["freeze"]:
            return freeze()
        case ["check"]:
            return checklist.main()
    print("usage: python -m tests.releases freeze|check", file=sys.stderr)
    return 2


def freeze() -> int:
    """Write the folder, unless its release is out."""
    release = frozen.Release(frozen.this_version())
    if release.is_out:
        print(
            f"{release.version} is out, and what it was is frozen; raise the version in "
            "pyproject.toml first",
            file=sys.stderr,
        )
        return 1
    release.folder.mkdir(exist_ok=True)
    wanted = frozen.texts() | {"database.sql": database.make()}
    for name, text in wanted.items():
        path = release.folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"written: {path.relative_to(frozen.FOLDER.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
