"""A storage for large results, with ``leveret[results]``."""

# ruff: noqa: S101 - a program that fails is what is wanted

from __future__ import annotations

from pathlib import Path

from leveret.results import ResultStore

kept = Path("results").absolute()
store = ResultStore(kept.as_uri())
reference = store.put("job-1", 0, 1, b'"large"')
assert store.get(reference) == b'"large"'
