"""An actor's arguments against its signature."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from leveret.arguments import Signature
from leveret.errors import ConfigurationError, InvalidJob

if TYPE_CHECKING:
    from collections import UserDict


class Address(BaseModel):
    """A model that an argument may be."""

    street: str
    number: int


def check(function, *positional, **named):
    """Check arguments, and call the function with what comes out."""
    first, rest = Signature(function, "a.b").check(positional, named)
    return function(*first, **rest)


def refused(function, *positional, **named):
    """Return why arguments are refused."""
    with pytest.raises(InvalidJob) as caught:
        Signature(function, "a.b").check(positional, named)
    assert caught.value.reason == "bad-arguments"
    return str(caught.value)


def test_json_becomes_what_the_annotations_ask_for():
    """Pydantic's lax mode: strings become times, ids and numbers."""

    def run(
        *, when: datetime, how_long: timedelta, which: UUID, price: Decimal, n: int, where: Address
    ):
        return when, how_long, which, price, n, where

    found = check(
        run,
        when="2026-01-02T03:04:05Z",
        how_long=90.0,
        which="01890000-0000-7000-8000-000000000000",
        price="1.50",
        n="17",
        where={"street": "Elm", "number": "5"},
    )
    assert found == (
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        timedelta(seconds=90),
        UUID("01890000-0000-7000-8000-000000000000"),
        Decimal("1.50"),
        17,
        Address(street="Elm", number=5),
    )


def test_every_wrong_argument_is_named():
    """The dead letter says all of it at once, and never the values."""

    def run(n: Annotated[int, Field(ge=0)], kind: Literal["a", "b"], where: Address): ...

    said = refused(run, n=-1, kind="secret", where={"street": "Elm"}, more=1)
    assert said.startswith("a.b: ")
    for name in ("n:", "kind:", "where.number:", "more:"):
        assert name in said
    assert "secret" not in said


def test_defaults_are_the_functions_own():
    """What a job does not have, the function fills in, even with what JSON could not."""
    marker = object()

    def run(a: int, b: int = 2, *, c: object = marker):
        return a, b, c

    assert check(run, a="1") == (1, 2, marker)


def test_a_missing_argument_is_named():
    """Before the function runs."""

    def run(a: int, b): ...

    assert "b: Field required" in refused(run, a=1)


def test_positional_arguments_are_bound_to_names():
    """Those of Dramatiq's envelope."""

    def run(a: int, b: int, *, c: int = 0):
        return a, b, c

    assert check(run, "1", b="2", c="3") == (1, 2, 3)
    assert Signature(run, "a.b").bind((1,), {"b": 2}) == {"a": 1, "b": 2}
    assert "too many positional" in refused(run, 1, 2, 3)
    assert "multiple values" in refused(run, 1, a=1, b=2)


def test_positional_only_arguments_come_by_name_and_go_by_position():
    """A job has names for all; the function does not."""

    def run(a: int, b: int = 5, /, c: int = 6):
        return a, b, c

    assert check(run, a="1") == (1, 5, 6)
    assert check(run, a="1", b="2", c="3") == (1, 2, 3)


def test_a_function_with_keywords_takes_unknown_arguments():
    """As they are."""

    def run(a: int, **more):
        return a, more

    assert check(run, a="1", b="2") == (1, {"b": "2"})
    assert Signature(run, "a.b").bind((1,), {"b": 2}) == {"a": 1, "b": 2}


def test_surplus_positional_arguments_have_no_names():
    """A job is an object of named arguments, so `*rest` can never be filled."""

    def run(a: int, *rest: int):
        return a, rest

    assert check(run, a=1) == (1, ())
    with pytest.raises(InvalidJob, match=r"\*rest"):
        Signature(run, "a.b").bind((1, 2), {})


@pytest.mark.parametrize("name", ["self", "cls", "model_config", "__class__", "a-b", "", "é"])
def test_names_that_mean_something_elsewhere_are_only_names_here(name):
    """Unknown ones are refused, and do nothing."""

    def run(a: int): ...

    assert "not permitted" in refused(run, a=1, **{name: 1})


def test_an_argument_may_have_any_name():
    """Also those that pydantic or dict use themselves."""

    def run(model_fields: int, items: int, schema: int, _private: int = 0):
        return model_fields, items, schema, _private

    assert check(run, model_fields="1", items="2", schema="3", _private="4") == (1, 2, 3, 4)


def test_an_actor_without_annotations_takes_anything_under_its_names():
    """Only the names are checked."""

    def run(a, b=None):
        return a, b

    assert check(run, a=[1, {"x": None}]) == ([1, {"x": None}], None)
    assert "c: " in refused(run, a=1, c=1)


def test_an_annotation_that_does_not_exist_at_run_time_is_a_clear_error():
    """When the worker starts, not when the first job comes."""

    def run(a: UserDict): ...

    with pytest.raises(ConfigurationError, match=r"'a\.b'.*UserDict"):
        Signature(run, "a.b")


def test_an_annotation_that_pydantic_does_not_know_is_a_clear_error():
    """It names the actor."""

    class Opaque: ...

    def run(a): ...

    run.__annotations__["a"] = Opaque
    with pytest.raises(ConfigurationError, match=r"'a\.b'"):
        Signature(run, "a.b")


def test_the_schema_of_the_arguments_has_types_names_and_defaults():
    """It is what the reference shows."""

    def run(to: str, n: int = 3, *, when: datetime | None = None): ...

    schema = Signature(run, "email.send").json_schema()
    assert schema["title"] == "email.send"
    assert schema["required"] == ["to"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["n"]["default"] == 3
    assert schema["properties"]["n"]["type"] == "integer"
