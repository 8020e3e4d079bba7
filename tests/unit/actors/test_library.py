"""Large libraries are imported when a job first needs them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from actors.error import ActorSettingsError
from actors.library import library


def test_knowing_the_actors_loads_no_large_library():
    """The API, the scheduler and the topology only have to know them."""
    program = (
        "import json, sys, actors; print(json.dumps([name for name in "
        "('duckdb', 'pyarrow', 'numpy', 'PIL', 'openpyxl') if name in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert json.loads(answer.stdout) == []


def test_what_is_asked_for_comes_from_the_module():
    """And what only looks at it (as `inspect` does) does not import it."""
    found = library("json")
    assert found.dumps is json.dumps
    assert not hasattr(library("leveret_nowhere"), "__wrapped__")
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = found.nothing_of_the_kind


def test_a_missing_library_is_told_as_a_setting_to_correct():
    """The job is tried again, and the message says where it can run."""
    with pytest.raises(ActorSettingsError, match="'leveret_nowhere', which is not installed here"):
        _ = library("leveret_nowhere").anything
