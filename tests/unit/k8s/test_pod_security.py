"""Pods ask for nothing that the "restricted" standard forbids, and write nowhere but to /tmp."""

from __future__ import annotations

import pytest

from tests.support.manifests import (
    OVERLAYS,
    WORKLOADS,
    container,
    objects,
    of_kind,
    overlay,
    pod,
    with_component,
)

EVERY = [(name, one) for name in OVERLAYS for one in of_kind(overlay(name), *WORKLOADS).values()]
every_workload = pytest.mark.parametrize(
    "workload", [one for _, one in EVERY], ids=[f"{n}-{o['metadata']['name']}" for n, o in EVERY]
)


@pytest.mark.parametrize(
    "workload",
    [one for _, one in EVERY]
    + [of_kind(objects(with_component("deletion-cost")), "Deployment")["leveret-deletion-cost"]]
    + [*of_kind(overlay("dev"), "StatefulSet").values()],
    ids=lambda one: one["metadata"]["name"],
)
def test_pods_are_restricted(workload):
    """Not root, no more privileges, no capability, the runtime's seccomp profile, no host."""
    spec, only = pod(workload), container(workload)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"]["allowPrivilegeEscalation"] is False
    assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
    assert all(set(volume) <= {"name", "emptyDir", "configMap"} for volume in spec["volumes"])
    assert not any("hostPort" in port for port in only.get("ports", []))


@every_workload
def test_pods_write_to_tmp_alone(workload):
    """The root file system is read-only; what may be written to is bounded."""
    assert container(workload)["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["name"]: mount for mount in container(workload)["volumeMounts"]}
    writable = {v["name"]: v["emptyDir"] for v in pod(workload)["volumes"] if "emptyDir" in v}
    assert {mounts[name]["mountPath"] for name in writable} == {"/tmp"}
    assert all(volume["sizeLimit"] for volume in writable.values())


@every_workload
def test_pods_cannot_talk_to_kubernetes(workload):
    """No token is mounted, and Services leave no variables that could pass for settings."""
    assert pod(workload)["automountServiceAccountToken"] is False
    assert pod(workload)["enableServiceLinks"] is False


@every_workload
def test_pods_have_bounded_memory_and_ask_for_what_they_need(workload):
    """Requests of both, a limit of memory; a limit of CPU would only slow jobs down."""
    resources = container(workload)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_service_accounts_exist_and_have_no_rights(name):
    """Each workload has its own kind's account; nothing binds a role to any of them."""
    found = overlay(name)
    accounts = of_kind(found, "ServiceAccount")
    for workload in of_kind(found, *WORKLOADS).values():
        kind = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        assert pod(workload)["serviceAccountName"] == f"leveret-{kind}"
    used = {pod(one)["serviceAccountName"] for one in of_kind(found, *WORKLOADS).values()}
    assert used == accounts.keys()
    assert not any(one["automountServiceAccountToken"] for one in accounts.values())
    assert not of_kind(found, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_holds_everybody_to_the_standard(name):
    """The namespace refuses pods that are not restricted."""
    [namespace] = of_kind(overlay(name), "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
