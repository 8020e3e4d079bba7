"""What is to be done before this tree can be released.

The first part is looked at here, and is done or not. The rest takes minutes, a container engine or
somebody's hands, and is only listed, in its order.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from tests.releases import frozen
from tests.support.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]


def main() -> int:
    """Print it; return 1 when something of the first part is to be done."""
    version = frozen.this_version()
    looked_at = list(_looked_at(version))
    print(f"To release {version}:\n")
    for done, what in looked_at:
        print(f"[{'x' if done else ' '}] {what}")
    print()
    for number, step in enumerate(_by_hand(version), 1):
        print(f"{number}. {step}")
    return int(not all(done for done, _ in looked_at))


def _looked_at(version: str) -> Iterator[tuple[bool, str]]:
    _, _, rest = frozen.changelog().partition("\n## [Unreleased]\n")
    nothing_more = not rest.partition("\n## ")[0].strip()
    yield (
        frozen.is_out(version) and nothing_more,
        f"CHANGELOG.md: all under Unreleased moves below `## [{version}] - YYYY-MM-DD`",
    )
    others = {
        (file, found)
        for file in _files()
        for found in re.findall(
            r"(?:\bleveret(?:-actors)?:|\bnewTag: |\bARG VERSION=)(\d+\.\d+\.\d+)",
            (ROOT / file).read_text(),
        )
        if found != version
    }
    yield not others, f"every file names {version}" + "".join(f"; {f} has {v}" for f, v in others)
    stale = _frozen_is_stale()
    yield (
        not stale,
        f"tests/releases/{version} is what this tree is (`make freeze`)"
        + "".join(f"; {name} is not" for name in stale),
    )
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    yield not status.stdout.strip(), "everything is committed"


def _files() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "compose/*.yaml", "k8s/*.yaml", "docs/*.md", "*Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def _frozen_is_stale() -> list[str]:
    """Return the frozen files that `make freeze` would write, but for the database."""
    release = frozen.Release(frozen.this_version())
    return [
        name
        for name, text in frozen.texts().items()
        if not (release.folder / name).exists() or (release.folder / name).read_text() != text
    ]


def _by_hand(version: str) -> Iterator[str]:
    yield "make ci                           all gates, on the RabbitMQ of this machine"
    yield "make test RABBITMQ=4.3            and on the newest"
    yield "make test-python PYTHON=3.13      and on the other Pythons: 3.12, 3.13"
    yield "make image-test compose-test      the images, and Compose, on a real engine"
    yield "make bench                        nothing has become slower"
    yield f"git tag --sign v{version}             of the commit that has all of that"
    yield "make wheel                        dist/ has what goes to the index"
    yield "make image                        leveret and leveret-actors, to your registry"
    yield "pyproject.toml: the next version; `make freeze` makes its folder in tests/releases"
