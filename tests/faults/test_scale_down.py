"""Which worker pods Kubernetes takes away first: the script of k8s/components/deletion-cost."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import TYPE_CHECKING

import pytest
from werkzeug import Response

from compose.native import ports
from leveret import metrics
from tests.support.manifests import K8S, container, objects, of_kind, pod, with_component
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer

SCRIPT = K8S / "components" / "deletion-cost" / "deletion_cost.py"
PODS = "/api/v1/namespaces/leveret/pods"


@pytest.fixture
def deletion_cost(monkeypatch):
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("deletion_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "deletion_cost", module)
    spec.loader.exec_module(module)
    return module


class Api:
    """As much of an API server as the script may use; what is not expected is answered with 500."""

    def __init__(self, server: HTTPServer, folder: Path) -> None:
        self.account = folder / "account"
        self.account.mkdir()
        (self.account / "namespace").write_text("leveret")
        (self.account / "token").write_text("t0ken")
        self.pods: dict[str, dict] = {}
        self.changes: list[tuple[str, str]] = []
        self.address = server.url_for("").rstrip("/")
        headers = {"Authorization": "Bearer t0ken"}
        server.expect_request(
            PODS, "GET", headers=headers, query_string={"labelSelector": "leveret.dev/pool"}
        ).respond_with_handler(lambda _: Response(json.dumps({"items": [*self.pods.values()]})))
        self._server, self._headers = server, headers

    def run_pod(self, name: str, port: int, **status) -> None:
        """Add a running pod, whose metrics are at a port of this machine."""
        self.pods[name] = {
            "metadata": {"name": name},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": ports.HOST, **status},
        }
        self._server.expect_request(
            f"{PODS}/{name}",
            "PATCH",
            headers={**self._headers, "Content-Type": "application/merge-patch+json"},
        ).respond_with_handler(lambda request: self._annotate(name, request))

    def _annotate(self, name: str, request) -> Response:
        patch = request.get_json(force=True)
        assert patch.keys() == {"metadata"}
        assert patch["metadata"].keys() == {"annotations"}
        [(annotation, cost)] = patch["metadata"]["annotations"].items()
        self.pods[name]["metadata"].setdefault("annotations", {})[annotation] = cost
        self.changes.append((name, cost))
        return Response("{}")


@pytest.fixture
def api(httpserver: HTTPServer, tmp_path: Path) -> Api:
    """Return the API server."""
    return Api(httpserver, tmp_path)


def test_busy_pods_cost_more_than_idle_ones(deletion_cost, api, pool, publisher, journal):
    """Of two real pools the busy one is annotated, once; idle again, it costs nothing."""
    busy = pool(threads=4)
    held = publisher.publish_many(("probe.hold", {"n": n}) for n in range(3))
    wait_until(lambda: len(journal.running()) == 3, timeout=20, what="three jobs run")
    idle = pool(threads=4)
    api.run_pod("busy", busy.port)
    api.run_pod("idle", idle.port)
    cluster = deletion_cost.Cluster(api.address, api.account)
    wait_until(lambda: busy.metric("leveret_jobs_in_progress") == 3, what="it is counted")
    assert deletion_cost.look(cluster) == 1
    assert deletion_cost.look(cluster) == 0
    assert api.changes == [("busy", "2")]
    journal.open_gate("gate")
    wait_until(lambda: len(journal.ends()) == len(held), timeout=20, what="they end")
    wait_until(lambda: busy.metric("leveret_jobs_in_progress") == 0, what="it is counted")
    assert deletion_cost.look(cluster) == 1
    assert api.changes == [("busy", "2"), ("busy", "0")]


def test_a_pod_that_does_not_answer_keeps_its_cost(deletion_cost, api, capsys):
    """It is named, the others are looked at all the same, and pods that do not run are left out."""
    api.run_pod("silent", ports.choose())
    api.run_pod("pending", ports.choose(), phase="Pending")
    api.run_pod("leaving", ports.choose())
    api.pods["leaving"]["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"
    cluster = deletion_cost.Cluster(api.address, api.account)
    assert [each.name for each in cluster.pods()] == ["silent"]
    assert deletion_cost.look(cluster) == 0
    assert "silent" in capsys.readouterr().err
    assert api.changes == []


@pytest.mark.parametrize(
    ("jobs", "cost"), [(0, "0"), (1, "1"), (2, "2"), (3, "2"), (4, "3"), (7, "3"), (8, "4")]
)
def test_costs_are_bands(deletion_cost, jobs, cost):
    """Small changes of a busy pod are not written to the API server."""
    assert deletion_cost.band(jobs) == cost


def test_the_script_reads_a_metric_that_workers_have(deletion_cost):
    """Its name is that of the code."""
    [described] = metrics.JOBS_IN_PROGRESS.describe()
    assert described.name == deletion_cost.METRIC
    assert deletion_cost.jobs_in(f"# HELP {described.name} …\n{described.name} 3.0\n") == 3


def test_its_pod_may_list_and_annotate_pods_and_nothing_else():
    """One role with two verbs on pods; no other account has any right."""
    found = objects(with_component("deletion-cost"))
    [role] = of_kind(found, "Role").values()
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]}]
    [binding] = of_kind(found, "RoleBinding").values()
    assert [subject["name"] for subject in binding["subjects"]] == ["leveret-deletion-cost"]
    assert not of_kind(found, "ClusterRole", "ClusterRoleBinding")
    deployment = of_kind(found, "Deployment")["leveret-deletion-cost"]
    assert pod(deployment)["serviceAccountName"] == "leveret-deletion-cost"
    assert container(deployment)["command"][-1].endswith(SCRIPT.name)
    with_token = [
        name
        for name, one in of_kind(found, "Deployment", "Job").items()
        if pod(one)["automountServiceAccountToken"]
    ]
    assert with_token == ["leveret-deletion-cost"]
