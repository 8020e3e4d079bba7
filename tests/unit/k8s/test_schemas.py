"""Every object of every overlay is one that the API servers of three releases accept."""

from __future__ import annotations

import kubernetes_validate
import pytest

from tests.support.manifests import COMPONENTS, OVERLAYS, objects, overlay, with_component

#: The oldest release that the manifests promise to work with, one between, and the newest known.
RELEASES = ("1.30", "1.34", "1.37")


def is_built_in(one):
    """Tell whether Kubernetes itself knows the object's kind."""
    group = one["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", OVERLAYS)
def test_built_in_objects_are_strictly_valid(name, release):
    """No field is unknown, none is missing, each has its type."""
    found = [one for one in overlay(name) if is_built_in(one)]
    assert len(found) > 20
    for one in found:
        kubernetes_validate.validate(one, release, strict=True)


def test_the_schemas_refuse_what_they_do_not_know():
    """A misspelt field and a number in place of a text are found: the check can fail."""
    [first, *_] = [one for one in overlay("prod") if one["kind"] == "Deployment"]
    for spec in ({**first["spec"], "replica": 1}, {**first["spec"], "replicas": "two"}):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**first, "spec": spec}, RELEASES[-1], strict=True)


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_stands_alone(component):
    """Each can be added to the base without the others, and leaves it valid."""
    found = objects(with_component(component))
    assert len(found) > 20
    for one in found:
        if is_built_in(one):
            kubernetes_validate.validate(one, RELEASES[-1], strict=True)
