"""Remove from an environment what no process of ours opens: `python strip.py /opt/leveret`.

Headers, tests and sources of compiled modules, the symbols with which those are debugged, parts of
Arrow that are for other servers and storages, and AWS's descriptions of all services but storage
and login. Needs `strip`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

#: Below the packages' folder.
_FOLDERS = (
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/tests",
    "pyarrow/includes",
    "sqlalchemy/testing",
    "greenlet/tests",
)
_FILES = (
    # Arrow's own servers and storages: ours go through fsspec.
    "pyarrow/libarrow_flight.so*",
    "pyarrow/libarrow_python_flight.so*",
    "pyarrow/_flight.*",
    "pyarrow/libarrow_s3.so*",
    "pyarrow/_s3fs.*",
    "pyarrow/_pyarrow_cpp_tests.*",
    "pyarrow/**/*.pyx",
    "pyarrow/**/*.pxi",
    "pyarrow/**/*.pxd",
    "pyarrow/**/*.h",
    "sqlalchemy/**/*.pyx",
    "sqlalchemy/**/*.pxd",
    "PIL/_imagingtk.*",
    "*/**/*.pyi",
    "uvloop/**/*.pyx",
    "uvloop/**/*.pxd",
    "uvloop/*.c",
    "httptools/**/*.c",
    "yaml/*.c",
    "greenlet/**/*.cpp",
    "greenlet/**/*.hpp",
    "greenlet/**/*.h",
    "aiohttp/**/*.pyx",
    "aiohttp/**/*.pxd",
)
#: What signing in and reading and writing of objects needs.
_AWS = {"s3", "sts", "sso", "sso-oidc", "signin"}


def main() -> None:
    """Strip the environment that the command line names."""
    (packages,) = Path(sys.argv[1]).glob("lib/python3*/site-packages")
    before = _size(packages)
    for folder in _FOLDERS:
        shutil.rmtree(packages / folder, ignore_errors=True)
    for pattern in _FILES:
        for file in packages.glob(pattern):
            file.unlink()
    for service in (packages / "botocore" / "data").glob("*/"):
        if service.name not in _AWS:
            shutil.rmtree(service)
    _link_copies(packages)
    _strip_symbols(packages)
    print(f"stripped {(before - _size(packages)) / 1e6:.0f} MB of {before / 1e6:.0f} MB")


def _link_copies(packages: Path) -> None:
    """Make one file of those that a wheel had to hold several times, under several names."""
    for copy in sorted(packages.glob("pyarrow/*.so*")):
        for other in packages.glob(f"pyarrow/{copy.name}.*"):
            if not other.is_symlink() and other.read_bytes() == copy.read_bytes():
                copy.unlink()
                copy.symlink_to(other.name)
                break


def _strip_symbols(packages: Path) -> None:
    """Of extension modules alone: libraries beside them were rewritten by the wheels' makers."""
    for module in packages.rglob("*.cpython-*.so"):
        if not module.is_symlink():
            subprocess.run(["strip", "--strip-debug", str(module)], check=True)


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


if __name__ == "__main__":
    main()
