"""Everything at once, with ``leveret[all]``: the contract of an actor, from the command line."""

# ruff: noqa: S101 - a program that fails is what is wanted

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import leveret

#: Used where opentelemetry-instrumentation-httpx is, which no extra brings.
OPTIONAL = {"leveret.tracing.http"}

for found in pkgutil.walk_packages(leveret.__path__, "leveret."):
    if not found.name.endswith("__main__") and found.name not in OPTIONAL:
        import_module(found.name)

Path("acme_jobs.py").write_text('''\
import leveret


@leveret.actor("invoice.print", queue="bulk")
def print_invoice(number: int, copies: int = 1) -> str:
    """Print an invoice."""
    return f"{copies} of {number}"
''')
(command,) = metadata.distribution("leveret").entry_points.select(name="leveret")
done = subprocess.run(
    [sys.executable, "-c", f"from {command.module} import main; main()", "asyncapi"],
    capture_output=True,
    text=True,
    check=False,
    env={"LEVERET_ACTORS": "acme_jobs", "LEVERET_HOUSEKEEPING": "false"},
)
assert done.returncode == 0, done.stderr
assert "invoice.print" in json.dumps(json.loads(done.stdout))
