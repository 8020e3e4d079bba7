"""A private Docker engine with the base images, and Leveret's images built in it.

These tests need root and minutes: they are collected for `make image-test` and `make compose-test`
alone, which set ``LEVERET_CONTAINERS``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from compose.engine import Engine, bases
from compose.native.errors import StackError
from compose.native.paths import Checkout
from tests.containers.image import ROOT, VERSION, Image

collect_ignore_glob = [] if os.environ.get("LEVERET_CONTAINERS") else ["test_*.py"]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Return a private engine, which ends without a trace."""
    if os.geteuid() != 0:
        pytest.skip("a private Docker engine needs root")
    with Engine() as started:
        yield started


@pytest.fixture(scope="session")
def images(engine: Engine) -> dict[str, Image]:
    """Build both images as the how-to page says; return them by name."""
    try:
        bases.ensure(engine, Checkout.here(), bases.PYTHON)
    except StackError as error:
        pytest.skip(f"the base image cannot be made here: {error}")
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    arguments = {
        "VERSION": VERSION,
        "REVISION": revision or "unknown",
        "CREATED": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    built = {}
    for name in ("leveret", "leveret-actors"):
        tag = f"{name}:{VERSION}"
        given = [part for item in arguments.items() for part in ("--build-arg", "=".join(item))]
        # Debian's packages and PyPI's are reached through the machine's network.
        engine.docker(
            *("build", "--quiet", "--network", "host", "--target", name, *given),
            *("--tag", tag, str(ROOT)),
            timeout_seconds=900,
        )
        built[name] = Image(engine, tag)
    return built
