"""Every command line of the manifests is run, with the settings that they give it."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.manifests import container, of_kind, overlay, pod
from tests.support.processes import ROOT, OurProcess, bare_environment

#: Each process's role in the broker, if it has any business there.
ROLES = {"topology": "admin", "api": "api", "relay": "relay", "recorder": "recorder"}
DEPLOYMENTS = of_kind(overlay("prod"), "Deployment")


def settings() -> dict[str, str]:
    """Return the config map's settings, but for the port, of which a machine has but one."""
    [found] = [
        one["data"]
        for name, one in of_kind(overlay("prod"), "ConfigMap").items()
        if name.startswith("leveret-settings-")
    ]
    return {name: value for name, value in found.items() if name != "LEVERET_HTTP_PORT"}


def environment(workload, vhost, database: str, folder: Path) -> dict[str, str]:
    """Return what a pod of this workload would have, with a broker and a database of ours."""
    kind = workload["metadata"]["labels"]["app.kubernetes.io/component"]
    broker = vhost.environment(ROLES.get(kind, "worker"))
    given = {"LEVERET_DATABASE_URL": database, **broker}
    wanted = {one["name"] for one in container(workload)["env"]}
    return {
        **settings(),
        **{name: value for name, value in given.items() if name in wanted},
        "TMPDIR": str(folder),
    }


@pytest.fixture
def stack(fresh_vhost, ledger_database):
    """Return a broker with the topology of the actors in the box, and a database with tables."""
    return fresh_vhost.declare(), ledger_database


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS))
def test_a_deployment_runs_as_its_manifest_says(stack, tmp_path, name):
    """It comes up within its startup probe's patience, answers its probes, and ends with 0."""
    vhost, database = stack
    deployment = DEPLOYMENTS[name]
    only = container(deployment)
    _, *argv = [*only["command"], *only.get("args", [])]
    startup = only["startupProbe"]
    patience = startup["periodSeconds"] * startup["failureThreshold"]
    variables = environment(deployment, vhost, database, tmp_path)
    with OurProcess(name, argv, variables, folder=tmp_path, group=True) as process:
        process.wait_ready(startup["httpGet"]["path"], timeout=patience)
        process.wait_ready(only["readinessProbe"]["httpGet"]["path"], timeout=patience)
        assert process.get(only["livenessProbe"]["httpGet"]["path"])[0] == http.client.OK
        assert process.get("/metrics")[0] == http.client.OK
        assert process.terminate(pod(deployment)["terminationGracePeriodSeconds"]) == 0


@pytest.mark.parametrize("name", ["leveret-migrate", "leveret-topology"])
def test_a_job_runs_as_its_manifest_says(fresh_vhost, fresh_database, tmp_path, name):
    """Its command succeeds on an empty database and an empty broker, and once more."""
    job = of_kind(overlay("prod"), "Job")[name]
    program, *words = container(job)["command"]
    variables = environment(job, fresh_vhost, fresh_database, tmp_path)
    for _ in range(2):
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *words],
            cwd=ROOT,
            env={**bare_environment(), **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
