"""Two OpenAPI documents held against each other: what of the older one's clients would break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["broken"]

Document = dict[str, Any]
#: The older document and the newer one, to look up what schemas refer to.
Pair = tuple[Document, Document]
#: Schemas may contain themselves.
_DEEPEST = 20
_METHODS = ("get", "put", "post", "delete", "patch", "head")


def broken(old: Document, new: Document) -> set[str]:
    """Return what a client of ``old`` cannot rely on with ``new``, a line each.

    A call, a parameter, a status or a property that is gone; what a call takes and now wants more
    of, or knows fewer values of; what an answer gives and now may not give, or gives as another
    type. New calls, optional parameters and further properties break nobody.
    """
    found: set[str] = set()
    for path, methods in old["paths"].items():
        for method in _METHODS:
            if method in methods:
                call = f"{method.upper()} {path}"
                other = new["paths"].get(path, {}).get(method)
                if other is None:
                    found.add(call)
                else:
                    found |= set(_call(call, methods[method], other, (old, new)))
    return found


def _call(call: str, old: Document, new: Document, both: Pair) -> Iterator[str]:
    had = {(p["in"], p["name"]): p for p in old.get("parameters", ())}
    has = {(p["in"], p["name"]): p for p in new.get("parameters", ())}
    for key, parameter in had.items():
        label = f"{call} {key[0]} {key[1]}"
        if key not in has:
            yield label
            continue
        yield from _taken(label, parameter["schema"], has[key]["schema"], both)
    for key, parameter in has.items():
        if parameter.get("required") and not had.get(key, {}).get("required"):
            yield f"{call} {key[0]} {key[1]} is required"
    took, takes = old.get("requestBody"), new.get("requestBody")
    if takes is not None and takes.get("required") and not (took or {}).get("required"):
        yield f"{call} body is required"
    for kind, content in (took or {}).get("content", {}).items():
        other = (takes or {}).get("content", {}).get(kind)
        if other is None:
            yield f"{call} body {kind}"
        else:
            yield from _taken(
                f"{call} body", content.get("schema", {}), other.get("schema", {}), both
            )
    for status, answer in old.get("responses", {}).items():
        other = new.get("responses", {}).get(status)
        if other is None:
            yield f"{call} {status}"
            continue
        for kind, content in answer.get("content", {}).items():
            if kind not in other.get("content", {}):
                yield f"{call} {status} {kind}"
                continue
            yield from _given(
                f"{call} {status}",
                content.get("schema", {}),
                other["content"][kind].get("schema", {}),
                both,
            )


def _resolve(schema: Document, document: Document) -> Document:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _types(schema: Document, document: Document) -> set[str]:
    """Return which JSON types a value may have; none for any."""
    schema = _resolve(schema, document)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            parts = [_types(part, document) for part in schema[word]]
            return set() if set() in parts else set().union(*parts)
    named = schema.get("type", [])
    return {named} if isinstance(named, str) else set(named)


def _values(schema: Document) -> set[str] | None:
    if "const" in schema:
        return {repr(schema["const"])}
    return {repr(value) for value in schema["enum"]} if "enum" in schema else None


def _objects(schema: Document, document: Document) -> Iterator[Document]:
    """Yield the schemas that a value of this one may follow."""
    schema = _resolve(schema, document)
    parts = [part for word in ("anyOf", "oneOf", "allOf") for part in schema.get(word, ())]
    if parts:
        for part in parts:
            yield from _objects(part, document)
    else:
        yield schema


def _pairs(old: Document, new: Document, both: Pair) -> Iterator[tuple[Document, Document]]:
    """Pair what stands on both sides: by title where there are several, or else by type."""
    others = list(_objects(new, both[1]))
    for one in _objects(old, both[0]):
        for keys in (("title", "type"), ("type",)):
            same = [o for o in others if all(o.get(key) == one.get(key) for key in keys)]
            if same:
                yield one, same[0]
                break


def _taken(
    label: str,
    old: Document,
    new: Document,
    both: Pair,
    *,
    depth: int = 0,
) -> Iterator[str]:
    """Compare what a client sends."""
    if depth > _DEEPEST:
        return
    had, has = _types(old, both[0]), _types(new, both[1])
    if has and not had <= has | ({"integer"} if "number" in has else set()):
        yield f"{label} takes {sorted(has)}, and took {sorted(had) or 'anything'}"
    for one, other in _pairs(old, new, both):
        if (fewer := _values(other)) is not None and not (_values(one) or {"…"}) <= fewer:
            yield f"{label} takes only {sorted(fewer)}"
        wanted = set(other.get("required", ())) - set(one.get("required", ()))
        yield from (f"{label}.{name} is required" for name in sorted(wanted))
        for name, part in one.get("properties", {}).items():
            if name not in other.get("properties", {}):
                yield f"{label}.{name}"
            else:
                yield from _taken(
                    f"{label}.{name}", part, other["properties"][name], both, depth=depth + 1
                )
        if "items" in one and "items" in other:
            yield from _taken(f"{label}[]", one["items"], other["items"], both, depth=depth + 1)


def _given(
    label: str,
    old: Document,
    new: Document,
    both: Pair,
    *,
    depth: int = 0,
) -> Iterator[str]:
    """Compare what a client gets."""
    if depth > _DEEPEST:
        return
    had, has = _types(old, both[0]), _types(new, both[1])
    if had and not (has and has <= had | ({"integer"} if "number" in had else set())):
        yield f"{label} gives {sorted(has) or 'anything'}, and gave {sorted(had)}"
    for one, other in _pairs(old, new, both):
        for name, part in one.get("properties", {}).items():
            if name not in other.get("properties", {}):
                yield f"{label}.{name}"
                continue
            if name in one.get("required", ()) and name not in other.get("required", ()):
                yield f"{label}.{name} may be missing"
            yield from _given(
                f"{label}.{name}", part, other["properties"][name], both, depth=depth + 1
            )
        if "items" in one and "items" in other:
            yield from _given(f"{label}[]", one["items"], other["items"], both, depth=depth + 1)
