"""An actor's arguments, checked against its signature before it runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Required, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from leveret.errors import ConfigurationError, InvalidJob
from leveret.message import Reason

__all__ = ["Fault", "Signature"]

_MOST_FAULTS = 10
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a job's arguments."""

    #: Where, as a JSON Pointer (RFC 6901) into the arguments; empty for all of them.
    pointer: str
    detail: str


class Signature:
    """The parameters of an actor's function, as a schema.

    Annotations are read by pydantic in its lax mode, so that a JSON string becomes the datetime,
    UUID or model that the function asks for. Unknown arguments are refused, unless the function
    takes ``**kwargs``. Thread-safe once built.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._positional_only = tuple(
            p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY
        )
        self._takes_more = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
        extra = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        try:
            hints = get_type_hints(function, include_extras=True)
            fields: dict[str, Any] = {}
            for p in parameters:
                if p.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                    continue
                hint = hints.get(p.name, Any)
                required = p.default is inspect.Parameter.empty
                fields[p.name] = Required[hint] if required else NotRequired[hint]
            config = ConfigDict(extra="allow" if extra else "forbid", title=name)
            shape: Any = with_config(config)(_typed_dict("Arguments", fields))
            self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(shape)
        except (NameError, TypeError, PydanticUserError) as error:
            raise ConfigurationError(
                f"the arguments of actor {name!r} have no schema: {error}; annotate them with "
                "types that exist at run time and that pydantic knows"
            ) from error

    def bind(self, positional: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        """Give positional arguments their names; raises `InvalidJob` where there is none."""
        try:
            bound = self._signature.bind(*positional, **named)
        except TypeError as error:
            raise InvalidJob(Reason.BAD_ARGUMENTS, f"{self._name}: {error}") from None
        arguments = dict(bound.arguments)
        for parameter in self._signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments.update(arguments.pop(parameter.name, {}))
            elif arguments.get(parameter.name) and (
                parameter.kind is inspect.Parameter.VAR_POSITIONAL
            ):
                raise InvalidJob(
                    Reason.BAD_ARGUMENTS,
                    f"{self._name}: a job's arguments have names, and *{parameter.name} has "
                    "none; take a list instead",
                )
        return arguments

    def check(
        self, positional: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Validate a job's arguments and return them as the function wants them.

        Raises `InvalidJob`, naming each argument that is wrong.
        """
        if positional:
            named = self.bind(positional, named)
        try:
            arguments = self._adapter.validate_python(named)
        except ValidationError as error:
            raise InvalidJob(Reason.BAD_ARGUMENTS, _explain(self._name, error)) from None
        if self._positional_only:
            first = [arguments.pop(n) for n in self._positional_only if n in arguments]
            return first, arguments
        return [], arguments

    def faults(self, arguments: Mapping[str, Any]) -> list[Fault]:
        """Validate named arguments as `check` does; say what is wrong, and where."""
        try:
            self._adapter.validate_python(arguments)
        except ValidationError as error:
            return [
                Fault(_pointer(problem["loc"], arguments), problem["msg"])
                for problem in error.errors(include_url=False, include_input=False)[:_MOST_FAULTS]
            ]
        return []

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments, with their defaults."""
        schema = self._adapter.json_schema()
        for name, parameter in self._signature.parameters.items():
            default = parameter.default
            if isinstance(default, str | int | float | bool | list | dict):
                schema.get("properties", {}).get(name, {}).setdefault("default", default)
        return schema


def _typed_dict(name: str, fields: dict[str, Any]) -> Any:
    return TypedDict(name, fields)  # type: ignore[operator]


def _pointer(where: Sequence[str | int], document: object) -> str:
    """Write where pydantic found fault as a JSON Pointer.

    It names the members of unions and the steps of validators along the way: what leads nowhere in
    the document is left out, unless it is the name of an argument that is missing.
    """
    parts: list[str] = []
    for number, part in enumerate(where):
        match document, part:
            case Mapping(), str() if part in document:
                document = document[part]
            case list() | tuple(), int() if 0 <= part < len(document):
                document = document[part]
            case Mapping(), str() if number == len(where) - 1 and part != "[key]":
                document = None
            case _:
                continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{part}" for part in parts)


def _explain(name: str, error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)[:_MOST_FAULTS]
    ]
    return f"{name}: {'; '.join(problems)}"
