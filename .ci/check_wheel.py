"""Build the wheel and try it as its users get it: alone, and with each of its extras.

First with pika and nothing else, installed by pip from `requirements/core.lock` into an empty
environment, as a publishing service does. Then with each extra in an environment of its own, which
has that extra's packages and no others: they come from this environment, into which
`requirements/dev.lock` was installed with its hashes, so that nothing is downloaded for it. The
interpreter is isolated, and neither this source tree nor another extra's package can help.

In each the extra does its smallest job, and what belongs to another extra says which one. mypy
reads the types as a stranger's project does. The sdist makes the same wheel.
"""

from __future__ import annotations

import email
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import markdown
import trove_classifiers
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
BUILD = ROOT / "build" / "wheel"
HERE = Path(__file__).parent / "wheel"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What needs only pika. `.importlinter` says the same of the source.
CORE = (
    "leveret",
    "leveret.errors",
    "leveret.extra",
    "leveret.message",
    "leveret.names",
    "leveret.outbox",
    "leveret.publisher",
    "leveret.request",
    "leveret.settings",
    "leveret.signals",
    "leveret.wheel",
)
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
#: psycopg leaves it to its users where libpq comes from; here it comes with it.
LIBPQ = ("psycopg-binary",)

T = TypeVar("T")


def main() -> None:
    """Build, look inside, install, try."""
    wheel = step("the wheel and the sdist, which make the same", build)
    step("the wheel's metadata", check_metadata, wheel)
    python = step("core: pika and nothing else", install, wheel)
    run(python, "-c", IMPORTS, *CORE)
    run(python, HERE / "core.py", PROJECT["version"])
    for extra in PROJECT["optional-dependencies"]:
        step(f"leveret[{extra}]", try_extra, wheel, extra)
    step("the types, in a stranger's project", check_types)
    print(f"leveret {PROJECT['version']}: the wheel is fit to be published")


def step(name: str, action: Callable[..., T], *values: object) -> T:
    """Take a step, and say how long it took."""
    begin = time.monotonic()
    done = action(*values)
    print(f"{name}: {time.monotonic() - begin:.1f} s", flush=True)
    return done


def run(python: str | Path, *words: str | Path) -> None:
    """Run a program in isolation, away from the source; leave with what it says if it fails."""
    words_ = [str(word) for word in (python, "-I", "-W", "error", *words)]
    done = subprocess.run(words_, cwd=BUILD, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words_)} failed:\n{done.stdout}{done.stderr}")


# ----------------------------------------------------------------------------------------- building


def build() -> Path:
    """Build both into dist/; return the wheel, which is the one that the sdist makes, too."""
    shutil.rmtree(DIST, ignore_errors=True)
    direct = BUILD / "direct"
    shutil.rmtree(direct, ignore_errors=True)
    direct.mkdir(parents=True)
    # An sdist, and the wheel out of it; then a wheel out of the tree.
    for argv in (["--outdir", str(DIST)], ["--wheel", "--outdir", str(direct)]):
        done = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", *argv, str(ROOT)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"it cannot be built:\n{done.stdout}{done.stderr}")
    (wheel,), (other,) = DIST.glob("*.whl"), direct.glob("*.whl")
    if contents(wheel) != contents(other):
        different = {name for name, _ in contents(wheel) ^ contents(other)}
        sys.exit(f"the sdist makes another wheel than the tree: {', '.join(sorted(different))}")
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        strangers = [
            name
            for name in archive.getnames()
            if name.split("/")[1] not in {"leveret", "README.md", "LICENSE", "CHANGELOG.md",
                "pyproject.toml", "PKG-INFO", ".gitignore"}
        ]  # fmt: skip
    if strangers:
        sys.exit(f"{sdist.name} holds more than leveret: {', '.join(strangers)}")
    return wheel


def contents(wheel: Path) -> set[tuple[str, str]]:
    """Return the names in a wheel, and a digest of each."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            (name, hashlib.sha256(archive.read(name)).hexdigest()) for name in archive.namelist()
        }


def information(wheel: Path) -> str:
    """Return the folder of the metadata in a wheel."""
    return f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"


def check_metadata(wheel: Path) -> None:
    """Leave unless what an index would show of it is all there, and true."""
    folder = information(wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = email.message_from_bytes(archive.read(f"{folder}METADATA"))
    faults = [f"it holds {name}" for name in names if not name.startswith(("leveret/", folder))]
    faults += [
        f"it lacks {name}"
        for name in ("leveret/py.typed", f"{folder}licenses/LICENSE", f"{folder}entry_points.txt")
        if name not in names
    ]
    faults += [
        f"{word} is {about[word]!r}, not {wanted!r}"
        for word, wanted in (
            ("Version", PROJECT["version"]),
            ("License-Expression", PROJECT["license"]),
            ("Requires-Python", PROJECT["requires-python"]),
            ("Description-Content-Type", "text/markdown"),
        )
        if about[word] != wanted
    ]
    faults += [
        f"the classifier {classifier!r} is not one"
        for classifier in about.get_all("Classifier", ())
        if classifier not in trove_classifiers.classifiers
    ]
    extras = set(about.get_all("Provides-Extra", ()))
    if extras != set(PROJECT["optional-dependencies"]):
        faults.append(f"the extras are {sorted(extras)}")
    page = markdown.markdown(str(about.get_payload()), extensions=["tables", "fenced_code"])
    if page.count("<h1") != 1 or "<table" not in page:
        faults.append("the README does not render: one heading, and its tables")
    if faults:
        sys.exit(f"{wheel.name}: {'; '.join(faults)}")


# --------------------------------------------------------------------------------------- installing


def install(wheel: Path) -> Path:
    """Install the wheel and the core's lock into an empty environment; return its Python."""
    python = environment("core")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    pip += ["install", "-qq"]
    lock = ROOT / "requirements" / "core.lock"
    subprocess.run([*pip, "--require-hashes", "--requirement", str(lock)], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    return python


def environment(name: str) -> Path:
    """Make an empty environment; return its Python."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def try_extra(wheel: Path, extra: str) -> None:
    """Put the wheel and an extra's packages into an empty environment, and have it work."""
    python = environment(extra)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(BUILD / extra), "platbase": ""}))
    found = closure(wheel, extra)
    if "psycopg" in found:
        found |= {name: metadata.distribution(name) for name in LIBPQ}
    for distribution in found.values():
        transplant(distribution, site)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # noqa: S202 - it was built right here
    run(python, HERE / f"{extra}.py", PROJECT["version"])


def closure(wheel: Path, extra: str) -> dict[str, metadata.Distribution]:
    """Return the distributions that ``leveret[extra]`` installs, by name."""
    with zipfile.ZipFile(wheel) as archive:
        about = email.message_from_bytes(archive.read(f"{information(wheel)}METADATA"))
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    wanted = list(_required(about.get_all("Requires-Dist", ()), {extra}))
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras}
        if seen.issuperset((name, word) for word in extras):
            continue
        seen |= {(name, word) for word in extras}
        if name == "leveret":
            lines = about.get_all("Requires-Dist", ())
        else:
            found[name] = metadata.distribution(name)
            if found[name].version not in requirement.specifier:
                sys.exit(f"{name} {found[name].version} is locked, and {requirement} is wanted")
            lines = found[name].requires or []
        wanted += _required(lines, extras)
    return found


def _required(lines: list[str] | tuple[()], extras: set[str]) -> Iterator[Requirement]:
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def transplant(distribution: metadata.Distribution, site: Path) -> None:
    """Link the files of an installed distribution into another environment."""
    for file in distribution.files or ():
        if ".." in file.parts or file.suffix == ".pyc":
            continue  # programs, and what this interpreter has made of the sources
        source, target = Path(str(distribution.locate_file(file))), site / file
        if target.exists() or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def check_types() -> None:
    """Have mypy check a stranger's module against the wheel with all its extras."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--python-executable", str(BUILD / "all" / "bin" / "python")),
            *("--cache-dir", str(BUILD / "mypy"), "stranger.py"),
        ],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"a stranger's module has wrong types:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
