"""The API does what /openapi.json says, whatever it is asked."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.api import create_app
from tests.integration.api.conftest import nowhere

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPERATIONS = [
    (method, path)
    for path, methods in create_app(nowhere()).openapi()["paths"].items()
    for method in methods
]

#: The API runs in this process, and its threads draw random numbers of their own meanwhile.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)


@pytest.fixture(scope="module")
def schema(api, client):
    """Return what the API says of itself, as schemathesis reads it."""
    return schemathesis.openapi.from_dict(client.get("/openapi.json").json())


@pytest.fixture
def call(api, client):
    """Return a function that sends a request."""
    return lambda case: case.call(base_url=api.url, headers=dict(client.headers))


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_the_document_has(schema, call, method, path, mode):
    """No error of the server, no undocumented status, kind, header or body; nothing wrong taken."""
    operation = schema[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=6,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def try_out(case: Any) -> None:
        if case.query and "wait" in case.query:
            case.query["wait"] = 0.01  # it is kept, and there are many
        case.validate_response(call(case), checks=CHECKS)

    with suppress(Unsatisfiable):  # what takes nothing can be given nothing wrong
        try_out()
