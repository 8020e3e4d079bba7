"""The page of what the Python library exports, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_origin

import leveret
from leveret import Publisher, Receipt, errors

#: The modules whose `__all__` is for users, but for `leveret.errors`, which is shown as a tree.
MODULES = ("leveret", "leveret.outbox", "leveret.results", "leveret.schedules", "leveret.fastapi")
#: What is public for other parts of the library, and of no use to others.
_INTERNAL_PARAMETERS = {"io", "outbound", "clock"}
_METHODS = {
    Publisher: ("publish", "send", "publish_many", "flush", "close"),
    Receipt: ("job_id", "wait", "result", "aresult", "done", "exception", "add_done_callback"),
}
_MADE_BY_LEVERET = {Receipt}
_WIDTH = 88


def page(note: str) -> str:
    """Write the page."""
    parts = [
        "# The Python library\n\n",
        note,
        (
            "What a program imports from `leveret`. Publishing needs `pip install leveret`, actors "
            "`leveret[worker]`, results and\nthe outbox with SQLAlchemy `leveret[postgres]`, "
            "FastAPI `leveret[fastapi]`. What is not on this page is not promised to stay.\n"
        ),
    ]
    for name in MODULES:
        module = importlib.import_module(name)
        parts.append(f"\n## {name}\n\n{_prose(inspect.getdoc(module) or '')}\n")
        for word in module.__all__:
            if name == "leveret" or word not in leveret.__all__:
                parts.extend(_described(f"{name}.{word}", getattr(module, word)))
    parts.append(f"\n## leveret.errors\n\n{_tree(errors.LeveretError)}\n")
    return "".join(parts)


def _described(name: str, thing: Any) -> Iterator[str]:
    yield f"\n### {name}\n\n"
    if inspect.isclass(thing):
        if issubclass(thing, enum.Enum):
            yield f"{_prose(inspect.getdoc(thing) or '')}\n\n"
            for key, member in thing.__members__.items():
                yield f"- `{member.value}`{_remark(thing, key)}\n"
            return
        if thing not in _MADE_BY_LEVERET:
            yield _signature(name, thing)
        yield f"{_prose(inspect.getdoc(thing) or '')}\n"
        yield from _fields(thing)
        for method in _METHODS.get(thing, _public(thing)):
            found = inspect.getattr_static(thing, method)
            title = f"{name.rpartition('.')[2]}.{method}"
            if isinstance(found, property):
                yield f"\n**{title}**: {_prose(inspect.getdoc(found) or '')}\n"
                continue
            yield f"\n#### {title}\n\n"
            yield _signature(title, getattr(thing, method))
            yield f"{_prose(inspect.getdoc(found) or '')}\n"
    elif get_origin(thing) is Annotated:
        yield f"```python\n{name} = Annotated[{thing.__origin__.__name__}, ...]\n```\n"
        yield from (f"\n{remark}\n" for remark in [_constant(name)] if remark)
    elif callable(thing):
        yield _signature(name, thing)
        yield f"{_prose(inspect.getdoc(thing) or '')}\n"
    else:
        yield f"```python\n{name} = {textwrap.shorten(repr(thing), _WIDTH)}\n```\n"
        yield from (f"\n{remark}\n" for remark in [_constant(name)] if remark)


def _public(thing: type) -> list[str]:
    return [
        name
        for name, value in vars(thing).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod))
    ]


def _signature(name: str, thing: Callable[..., Any]) -> str:
    """Write a call as the reader would write the function's definition."""
    try:
        found = inspect.signature(thing)
    except ValueError:  # an exception with the constructor of its base
        return ""
    kept = [p for p in found.parameters.values() if p.name not in {"self", *_INTERNAL_PARAMETERS}]
    written = [_parameter(parameter) for parameter in kept]
    stars = [n for n, p in enumerate(kept) if p.kind is p.KEYWORD_ONLY]
    if stars and not any(p.kind is p.VAR_POSITIONAL for p in kept):
        written.insert(stars[0], "*")
    returned = found.return_annotation
    arrow = "" if inspect.isclass(thing) or returned is found.empty else f" -> {_type(returned)}"
    line = f"{name}({', '.join(written)}){arrow}"
    if len(line) > _WIDTH:
        line = f"{name}(\n" + "".join(f"    {part},\n" for part in written) + f"){arrow}"
    is_coroutine = inspect.iscoroutinefunction(thing)
    return f"```python\n{'async ' if is_coroutine else ''}{line}\n```\n\n"


def _parameter(parameter: inspect.Parameter) -> str:
    stars: dict[int, str] = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    text = f"{stars.get(parameter.kind, '')}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    if isinstance(default, type):
        shown = default.__name__
    elif dataclasses.is_dataclass(default):
        shown = f"{type(default).__name__}(…)"
    elif "object at 0x" in repr(default) or repr(default).startswith("<"):
        shown = str(default.value) if isinstance(default, enum.Enum) else "…"
    else:
        shown = re.sub(r"\bdatetime\.", "", repr(default))
    return f"{text} = {shown}"


def _type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b_Errors\b", "type[Exception] | tuple[type[Exception], ...]", text)


def _fields(thing: type) -> Iterator[str]:
    """List the fields of a data class, with the comments beside them."""
    if not dataclasses.is_dataclass(thing):
        return
    remarks = {field.name: _remark(thing, field.name) for field in dataclasses.fields(thing)}
    if any(remarks.values()):
        yield "\n"
        yield from (f"- `{name}`{remark}\n" for name, remark in remarks.items() if remark)


def _remark(thing: type, name: str) -> str:
    """Return what the `#:` comment above a field or member says."""
    lines = inspect.getsource(thing).splitlines()
    for number, line in enumerate(lines):
        if re.match(rf"    {name}\s*[:=]", line):
            said: list[str] = []
            for above in reversed(lines[:number]):
                if not above.strip().startswith("#:"):
                    break
                said.insert(0, above.strip().removeprefix("#:").strip())
            return f": {_prose(' '.join(said))}" if said else ""
    return ""


def _constant(name: str) -> str:
    module, _, word = name.rpartition(".")
    source = inspect.getsource(importlib.import_module(module))
    found = re.search(rf"((?:^#: .*\n)+){word}\b", source, re.MULTILINE)
    return _prose(re.sub(r"^#: ?", "", found[1], flags=re.MULTILINE)) if found else ""


def _prose(doc: str) -> str:
    """Make Markdown of a docstring: parameters are a list, examples are code."""
    doc = re.sub(r"``([^`]+)``", r"`\1`", doc)
    doc = re.sub(r":class:`~?([^`]+)`", r"`\1`", doc)
    blocks: list[str] = []
    code = False
    for block in doc.split("\n\n"):
        if code and block.startswith("    "):
            blocks.append(f"```python\n{textwrap.dedent(block)}\n```")
            continue
        code = block.rstrip().endswith("::")
        text = re.sub(r"\s*::$", ":", block) if block.strip() != "::" else ""
        if text.startswith(":"):
            text = re.sub(r"\n\s+", " ", text)
            text = re.sub(r"^:param (\w+): ?", r"- `\1`: ", text, flags=re.MULTILINE)
            text = re.sub(r"^:raises? (\w+): ?", r"- raises `\1`: ", text, flags=re.MULTILINE)
        if text:
            blocks.append(text.rstrip())
    return "\n\n".join(blocks)


def _tree(error: type[Exception], depth: int = 0) -> str:
    """List an exception and what inherits from it."""
    about = (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " ")
    lines = [f"{'    ' * depth}- `{error.__name__}`: {_prose(about)}"]
    children = [kind for kind in error.__subclasses__() if kind.__module__ == errors.__name__]
    lines += [_tree(kind, depth + 1) for kind in sorted(children, key=lambda kind: kind.__name__)]
    return "\n".join(lines)
