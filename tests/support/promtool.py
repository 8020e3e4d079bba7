"""Prometheus, Alertmanager and their checkers, from this machine or out of Debian's packages."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.pages import ROOT

#: Which programs are taken out of which package.
_PACKAGES = {
    "prometheus": ("prometheus", "promtool"),
    "prometheus-alertmanager": ("prometheus-alertmanager", "amtool"),
}


def promtool() -> Path:
    """Return the checker of rules; skip the test, saying why, where it cannot be had."""
    return program("promtool")


@functools.cache
def program(name: str) -> Path:
    """Return a program of these packages; skip the test, saying why, where it cannot be had.

    It is looked for on the PATH, then in build/promtool, where it is unpacked from the package
    without installing that, for which nobody has to be root.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    kept = ROOT / "build" / "promtool" / name
    if not kept.exists():
        missing = [tool for tool in ("apt-get", "dpkg-deb", "tar") if shutil.which(tool) is None]
        if missing:
            pytest.skip(f"{name} is not installed, and {missing[0]} is not there to unpack it")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            (package,) = (each for each, programs in _PACKAGES.items() if name in programs)
            for unpacked in _unpack(package, Path(folder)):
                unpacked.replace(kept.parent / unpacked.name)  # another process may be at it, too
    return kept


def _unpack(package: str, folder: Path) -> list[Path]:
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    private = [
        *("-o", f"Dir::State::Lists={folder / 'lists'}"),
        *("-o", f"Dir::Cache={folder / 'cache'}"),
    ]
    quiet = ["apt-get", "-qq", "-o", "Acquire::Retries=2"]
    if os.geteuid() == 0:
        quiet += ["-o", "APT::Sandbox::User=root"]
    # The lists of a fresh machine are empty, and only root may fill them.
    said = _run([*quiet, "download", package], folder)
    if said is not None:
        said = _run([*quiet, *private, "update"], folder) or _run(
            [*quiet, *private, "download", package], folder
        )
    packages = list(folder.glob(f"{package}_*.deb"))
    if said is not None or not packages:
        pytest.skip(f"{package} is not installed, and Debian's package cannot be had: {said}")
    stream = folder / "package.tar"
    with stream.open("wb") as output:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", packages[0]], stdout=output, check=True)
    programs = [f"./usr/bin/{name}" for name in _PACKAGES[package]]
    subprocess.run(["tar", "-xf", stream, "-C", folder, *programs], check=True)
    return [folder / name for name in programs]


def _run(argv: list[str], folder: Path) -> str | None:
    """Run a command; return what it said if it failed."""
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )
    return None if not done.returncode else (done.stderr.strip()[-300:] or "it failed")
