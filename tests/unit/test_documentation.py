"""Everything that is exported is there, and says what it is for."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import leveret

MODULES = sorted(
    [
        "leveret",
        *(
            module.name
            for module in pkgutil.walk_packages(leveret.__path__, "leveret.")
            if not module.name.rpartition(".")[2].startswith("_")
        ),
    ]
)


def described(thing):
    """Tell whether a class or function has a docstring of its own."""
    return bool(inspect.getdoc(thing)) and (
        not inspect.isclass(thing) or ("__doc__" in vars(thing) and bool(thing.__doc__))
    )


@pytest.mark.parametrize("name", MODULES)
def test_everything_exported_exists_and_is_documented(name):
    """`__all__` is sorted, has no ghosts, and every class, method and function in it is described.

    Constants are described by a comment beside them, which no program can see.
    """
    module = importlib.import_module(name)
    assert inspect.getdoc(module), f"{name} does not say what it is for"
    exported = getattr(module, "__all__", [])
    order = sorted(exported, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert list(exported) == order
    for word in exported:
        thing = getattr(module, word)
        if not inspect.isclass(thing) and not inspect.isfunction(thing):
            continue
        assert described(thing), f"{name}.{word}"
        if inspect.isclass(thing):
            for method, function in vars(thing).items():
                if method.startswith("_") or isinstance(function, type):
                    continue
                if inspect.isfunction(function) or isinstance(
                    function, property | classmethod | staticmethod
                ):
                    assert inspect.getdoc(getattr(thing, method)), f"{name}.{word}.{method}"


def test_the_root_exports_what_it_promises_and_nothing_more():
    """Twelve names are all that most users ever need."""
    assert leveret.__all__ == [
        "Backoff", "Dead", "Job", "LeveretError", "Publisher", "Receipt", "Retry", "Snooze",
        "actor", "current_job", "once_connection", "once_session",
    ]  # fmt: skip
    with pytest.raises(AttributeError, match="nonsense"):
        _ = leveret.nonsense
