"""The release gates: what stands between a change and those who run Leveret, by name.

Each is a group of tests; together with `lint`, `types`, `imports` and `wheel` of the Makefile they
are `make ci`. A test is marked by where it is, so that a new file of a kind belongs to its gate at
once: ``pytest -m gate`` (`make gates`) runs them all, and says at the end how each went.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

__all__ = ["FILE", "GATES", "Result", "gate_of", "mark", "results"]

#: Of each gate, where its tests are.
GATES: dict[str, tuple[str, ...]] = {
    "worker: start, routing, shutdown": (
        "tests/e2e/test_worker_gate.py",
        "tests/faults/test_drain.py",
        "tests/faults/test_health.py",
        "tests/faults/test_scale_down.py",
    ),
    "upgrade: database, broker, messages, names": (
        "tests/unit/releases/*",
        "tests/integration/test_release_upgrade.py",
        "tests/integration/test_migrations.py",
        "tests/faults/test_roll_out.py",
    ),
    "manifests": (
        "tests/unit/k8s/*",
        "tests/integration/test_manifest_processes.py",
        "tests/integration/test_keda_triggers.py",
        "tests/unit/test_image_build.py",
    ),
    "rules and runbooks": (
        "tests/unit/test_alerts.py",
        "tests/*/test_*alert*.py",
        "tests/*/test_*runbook*.py",
        "tests/*/runbooks/*",
    ),
    "dashboards": ("tests/*/test_*dashboard*.py", "tests/*/dashboards/*"),
    "versions and pages": (
        "tests/unit/test_versions.py",
        "tests/unit/test_docs.py",
        "tests/unit/test_documentation.py",
    ),
}
#: The environment variable that names the file in which the results are wanted.
FILE = "LEVERET_GATES"


@dataclass
class Result:
    """How a gate went."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    #: Of all its tests, one after the other.
    seconds: float = 0.0
    #: What its tests have measured.
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether it may be passed."""
        return not self.failed and self.passed > 0


def gate_of(path: str) -> str | None:
    """Return the gate of the tests in a file, by its path in the tree."""
    return next(
        (name for name, where in GATES.items() if any(fnmatch(path, one) for one in where)), None
    )


def mark(items: Iterable[pytest.Item], root: Path, marker: Any) -> None:
    """Mark tests with their gate."""
    for item in items:
        gate = (
            gate_of(item.path.relative_to(root).as_posix()) if root in item.path.parents else None
        )
        if gate is not None:
            item.add_marker(marker)
            item.user_properties.append(("gate", gate))


def results(reports: Iterable[pytest.TestReport]) -> dict[str, Result]:
    """Add up what is reported of tests, by gate; write it down where that is wanted."""
    found: defaultdict[str, Result] = defaultdict(Result)
    for report in reports:
        properties = dict(report.user_properties)
        gate = properties.pop("gate", None)
        if gate is None:
            continue
        result = found[str(gate)]
        result.seconds += report.duration
        if report.failed:
            result.failed += 1
        elif report.skipped:
            result.skipped += 1
        elif report.when == "call":
            result.passed += 1
            result.notes += [f"{name}: {value}" for name, value in properties.items()]
    if found and (path := os.environ.get(FILE)):
        document = {name: {**vars(one), "holds": one.holds} for name, one in found.items()}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(document, indent=1))
    return dict(found)
