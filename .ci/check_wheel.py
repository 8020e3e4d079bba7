"""Build the wheel and try it as a publishing service gets it: with pika and nothing else.

The environment is empty but for what `requirements/core.lock` holds, and the interpreter is
isolated, so that neither this source tree nor an extra's package can help.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
EMPTY = ROOT / "build" / "wheel-venv"
#: What needs only pika. `.importlinter` says the same of the source.
CORE = (
    "leveret",
    "leveret.errors",
    "leveret.message",
    "leveret.names",
    "leveret.outbox",
    "leveret.publisher",
    "leveret.request",
    "leveret.settings",
    "leveret.signals",
    "leveret.wheel",
)
SMOKE = """
import importlib, sys
from importlib.metadata import version
for name in sys.argv[1:]:
    importlib.import_module(name)
print("leveret", version("leveret"), "imports with pika alone:", ", ".join(sys.argv[1:]))
"""


def main() -> None:
    """Build, look inside, install, import."""
    wheel = build()
    strangers = foreign_files(wheel)
    if strangers:
        sys.exit(f"{wheel.name} holds more than leveret: {', '.join(strangers)}")
    python = install(wheel)
    sys.exit(subprocess.run([python, "-I", "-c", SMOKE, *CORE], cwd=EMPTY, check=False).returncode)


def build() -> Path:
    """Return the new wheel in dist/."""
    shutil.rmtree(DIST, ignore_errors=True)
    argv = ["--wheel", "--no-isolation", "--outdir", str(DIST), str(ROOT)]
    subprocess.run([sys.executable, "-m", "build", *argv], stdout=subprocess.DEVNULL, check=True)
    (wheel,) = DIST.glob("*.whl")
    return wheel


def foreign_files(wheel: Path) -> list[str]:
    """Return what in the wheel is neither the package nor its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    metadata = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    return [name for name in names if not name.startswith(("leveret/", metadata))]


def install(wheel: Path) -> str:
    """Install the wheel and the core's lock into an empty environment; return its Python."""
    shutil.rmtree(EMPTY, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(EMPTY)], check=True)
    python = str(EMPTY / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    pip += ["install", "-qq"]
    lock = ROOT / "requirements" / "core.lock"
    subprocess.run([*pip, "--require-hashes", "--requirement", str(lock)], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    return python


if __name__ == "__main__":
    main()
