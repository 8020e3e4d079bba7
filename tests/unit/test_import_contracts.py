"""The directions between the folders are really checked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of what the contracts are about."""
    for name in ("leveret", "actors", "services", "compose", "tests/support"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def check(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the tree's contracts in the tree itself, and not in the one that is installed."""
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; "
    code += "sys.exit(lint_imports(no_cache=True))"
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, cwd=tree, capture_output=True, text=True, check=False)


def test_the_tree_keeps_its_contracts(copy: Path) -> None:
    """Nothing imports what it may not."""
    found = check(copy)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("leveret/wheel.py", "import services.worker", "The library imports nothing else of ours"),
        ("leveret/names.py", "import scheduler", "The library imports nothing else of ours"),
        ("actors/__init__.py", "import services", "Actors import only the library"),
        ("services/relay.py", "import actors", "Services import the library, and only the worker"),
        ("services/relay.py", "import services.worker", "One service does not import another"),
        ("compose/extra.py", "import actors", "The stack imports only the library"),
        ("leveret/signals.py", "import pydantic", "The core needs no package but pika"),
        ("leveret/names.py", "import leveret.management", "The core needs no package but pika"),
    ],
)
def test_a_violation_is_caught(copy: Path, module: str, line: str, contract: str) -> None:
    """One line in the wrong folder breaks the contract that forbids it, by name."""
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    found = check(copy)
    assert found.returncode == 1, found.stdout + found.stderr
    broken = [text for text in found.stdout.splitlines() if text.endswith("BROKEN")]
    assert any(text.startswith(contract) for text in broken), found.stdout
