"""An image of ours in the engine of these tests."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose.engine import Engine

__all__ = ["ROOT", "VERSION", "Image"]

ROOT = Path(__file__).resolve().parents[2]
VERSION = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


@dataclass(frozen=True)
class Image:
    """An image of ours in the engine."""

    engine: Engine
    tag: str

    def inspect(self) -> dict[str, Any]:
        """Return what the engine knows of it."""
        return self.engine.inspect(self.tag)

    def run(self, *argv: str, options: tuple[str, ...] = ()) -> str:
        """Run a program of it as hardened as in production; return what it printed."""
        return self.engine.docker(
            *("run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"),
            *("--security-opt", "no-new-privileges", *options, "--entrypoint", argv[0]),
            *(self.tag, *argv[1:]),
        ).stdout

    def python(self, program: str, options: tuple[str, ...] = ()) -> Any:
        """Run a Python program in it; return the JSON document that it printed."""
        return json.loads(self.run("python", "-c", program, options=options))
