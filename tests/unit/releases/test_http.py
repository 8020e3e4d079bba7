"""What breaks a client of the HTTP API is told from what does not."""

from __future__ import annotations

import copy

import pytest

from tests.releases.frozen import releases
from tests.releases.http import broken

OLD = releases()[-1].openapi


def changed(change):
    """Return the document after a change."""
    made = copy.deepcopy(OLD)
    change(made)
    return made


def schemas(document):
    """Return its schemas."""
    return document["components"]["schemas"]


def _new_call(document):
    document["paths"]["/v1/new"] = {"get": {"responses": {"200": {}}}}


def _new_parameter(document):
    parameters = document["paths"]["/v1/jobs"]["get"]["parameters"]
    parameters.append({"in": "query", "name": "new", "required": False, "schema": {}})


def _new_properties(document):
    schemas(document)["NewJob"]["properties"]["new"] = {"type": "string"}
    schemas(document)["Job"]["properties"]["new"] = {"type": "string"}


@pytest.mark.parametrize("change", [_new_call, _new_parameter, _new_properties])
def test_what_is_new_breaks_nobody(change):
    """A call, a parameter that may be left out, a further property."""
    assert broken(OLD, changed(change)) == set()


def _drop_call(document):
    del document["paths"]["/v1/jobs/{job_id}"]["get"]


def _drop_parameter(document):
    call = document["paths"]["/v1/jobs"]["get"]
    call["parameters"] = [p for p in call["parameters"] if p["name"] != "actor"]


def _require_parameter(document):
    for parameter in document["paths"]["/v1/jobs"]["get"]["parameters"]:
        if parameter["name"] == "actor":
            parameter["required"] = True


def _drop_what_is_taken(document):
    del schemas(document)["NewJob"]["properties"]["queue"]


def _require_what_is_taken(document):
    schemas(document)["NewJob"]["required"].append("queue")


def _drop_what_is_given(document):
    del schemas(document)["Job"]["properties"]["state"]


def _give_another_type(document):
    schemas(document)["Job"]["properties"]["attempt"] = {"type": "string"}


def _drop_status(document):
    del document["paths"]["/v1/jobs"]["post"]["responses"]["202"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop_call, "GET /v1/jobs/{job_id}"),
        (_drop_parameter, "GET /v1/jobs query actor"),
        (_require_parameter, "GET /v1/jobs query actor is required"),
        (_drop_what_is_taken, "POST /v1/jobs body.queue"),
        (_require_what_is_taken, "POST /v1/jobs body.queue is required"),
        (_drop_what_is_given, "GET /v1/jobs/{job_id} 200.state"),
        (
            _give_another_type,
            "GET /v1/jobs/{job_id} 200.attempt gives ['string'], and gave ['integer']",
        ),
        (_drop_status, "POST /v1/jobs 202"),
    ],
)
def test_what_breaks_a_client_is_named(change, said):
    """Whatever is gone, newly required, or another type."""
    assert said in broken(OLD, changed(change))
