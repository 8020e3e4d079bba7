"""The objects of operators are of their types; what they say is what the code says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from k8s import generate
from leveret import metrics, names
from leveret.topology import ROLES, build
from tests.support import clients
from tests.support.manifests import OVERLAYS, container, of_kind, overlay, pod, rendered
from tests.support.pages import ROOT

#: The npm packages with the operators' types, made from their own definitions.
MODELS = {
    "keda.sh/v1alpha1": "@kubernetes-models/keda",
    "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator",
    "postgresql.cnpg.io/v1": "@kubernetes-models/cloudnative-pg",
}
PACKAGES = [
    "@kubernetes-models/keda@2",
    "@kubernetes-models/prometheus-operator@6",
    "@kubernetes-models/cloudnative-pg@2",
    "typescript@5",
]
COMPILER = (
    *("--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"),
    *("--module", "nodenext", "--moduleResolution", "nodenext"),
)
VALIDATE = """
import { readFileSync } from "node:fs";
for (const [path, object] of JSON.parse(readFileSync(0, "utf8"))) {
    const model = (await import(path))[object.kind];
    try { new model(object).validate(); }
    catch (error) { console.log(object.kind, object.metadata.name, error.message); }
}
"""
BROKER = "http://leveret-rabbitmq:15672/leveret"


@pytest.fixture(scope="module")
def modules() -> Path:
    """Return the folder with the operators' types."""
    return clients.npm(*PACKAGES)


def typed() -> list[dict]:
    """Return the objects of operators whose types are to be had."""
    found = [one for one in overlay("prod") if one["apiVersion"] in MODELS]
    assert {one["kind"] for one in found} >= {
        "ScaledObject",
        "TriggerAuthentication",
        "PodMonitor",
        "ServiceMonitor",
        "Cluster",
    }
    return found


def literals(found: list[dict]) -> str:
    """Write objects as TypeScript literals of their types, with a name for each."""
    kinds = sorted({(one["apiVersion"], one["kind"]) for one in found})
    lines = [
        f"import type {{ I{kind} }} from '{MODELS[version]}/{version}/{kind}';"
        for version, kind in kinds
    ]
    lines += [
        f"export const _{n}: I{one['kind']} = {json.dumps(one)};" for n, one in enumerate(found)
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def complaints(modules: Path) -> dict[str, list[str]]:
    """Return what the compiler says of the objects, and of a misspelt one of each operator."""
    objects = typed()
    misspelt = []
    for version in MODELS:
        one = next(one for one in objects if one["apiVersion"] == version)
        misspelt.append({**one, "spec": {**one["spec"], "misspelt": 1}})
    folder = modules.parent
    (folder / "objects.ts").write_text(literals(objects))
    (folder / "misspelt.ts").write_text(literals(misspelt))
    done = node(
        modules, modules / "typescript" / "bin" / "tsc", *COMPILER, "objects.ts", "misspelt.ts"
    )
    said = (done.stdout + done.stderr).splitlines()
    found: dict[str, list[str]] = {"objects": [], "misspelt": []}
    for line in said:
        found["misspelt" if line.startswith("misspelt.ts") else "objects"].append(line)
    return found


def node(modules: Path, *words, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script beside the types."""
    return subprocess.run(
        ["node", *map(str, words)],
        cwd=modules.parent,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.timeout(300)  # the types may have to be installed first
def test_objects_of_operators_have_their_types(complaints):
    """KEDA's, Prometheus' and CloudNativePG's: no field is unknown, all have their types."""
    assert complaints["objects"] == []


@pytest.mark.timeout(300)
def test_the_types_refuse_what_they_do_not_know(complaints):
    """A misspelt field is found in an object of each operator: the check can fail."""
    found = [line for line in complaints["misspelt"] if "'\"misspelt\"' does not exist" in line]
    assert len(found) == len(MODELS)


@pytest.mark.timeout(300)
def test_objects_of_operators_have_valid_values(modules):
    """Each satisfies its definition: enumerations, patterns, bounds; and a wrong one does not."""
    script = modules.parent / "validate.mjs"
    script.write_text(VALIDATE)
    wrong = {**of_kind(typed(), "ScaledObject")["leveret-worker-bulk"], "spec": {"triggers": 1}}
    given = [
        [f"{MODELS[one['apiVersion']]}/{one['apiVersion']}/{one['kind']}", one]
        for one in [*typed(), wrong]
    ]
    done = node(modules, script.name, given=json.dumps(given))
    assert done.stderr == ""
    [complaint] = done.stdout.splitlines()
    assert complaint.startswith("ScaledObject leveret-worker-bulk data/spec")


def test_rabbitmq_resources_have_their_fields():
    """The cluster, the virtual host, users and permissions are as the operators define them."""
    schema = json.loads((Path(__file__).parent / "rabbitmq.schema.json").read_text())
    found = [one for one in overlay("prod") if one["apiVersion"] == "rabbitmq.com/v1beta1"]
    assert len(found) > len(ROLES) * 2
    for one in found:
        jsonschema.validate(one, schema, cls=jsonschema.Draft202012Validator)


def test_every_object_is_checked_by_something():
    """No kind is left over that neither Kubernetes, nor a model, nor our schema knows."""
    for one in overlay("prod"):
        version = one["apiVersion"]
        group = version.rpartition("/")[0]
        assert (
            "." not in group
            or group.endswith(".k8s.io")
            or version
            in (
                *MODELS,
                "rabbitmq.com/v1beta1",
            )
        )


# ----------------------------------------------------------------------------------------- RabbitMQ


def cluster() -> dict:
    """Return the RabbitMQ cluster's specification."""
    return of_kind(overlay("prod"), "RabbitmqCluster")["leveret-rabbitmq"]["spec"]


def test_generated_manifests_are_fresh():
    """What comes from elsewhere in the tree is what stands there; `make k8s` writes it anew."""
    stale = [path.relative_to(ROOT).as_posix() for path in generate.stale()]
    assert not stale, f"stale: {', '.join(stale)}; run `make k8s`"


def test_rules_and_dashboards_become_objects(tmp_path, monkeypatch):
    """A rule file is wrapped as it stands; a dashboard is a ConfigMap that the sidecar finds."""
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    for name, folder in (("RULES", "rules"), ("DASHBOARDS", "grafana")):
        monkeypatch.setattr(generate, name, tmp_path / folder)
    for name, file, text in (
        ("RULE_SOURCES", "slow.yaml", "# Why.\ngroups:\n  - name: slow\n    rules: []\n"),
        ("DASHBOARD_SOURCES", "pools.json", '{"title": "Pools"}\n'),
    ):
        folder = tmp_path / name.lower()
        folder.mkdir()
        (folder / file).write_text(text)
        monkeypatch.setattr(generate, name, folder)
    for path, text in {**generate.rules(), **generate.dashboards()}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "kustomization.yaml").write_text("components: [rules, grafana]\n")
    found = yaml.safe_load_all(rendered(str(tmp_path)))
    rule, board = sorted(found, key=lambda one: one["kind"], reverse=True)
    assert rule["metadata"]["name"] == "leveret-slow"
    assert rule["spec"] == {"groups": [{"name": "slow", "rules": []}]}
    assert board["metadata"] == {
        "name": "leveret-dashboard-pools",
        "labels": {"grafana_dashboard": "1"},
    }
    assert json.loads(board["data"]["pools.json"]) == {"title": "Pools"}


def test_users_may_do_what_their_role_may_do():
    """The resources, read back, are the roles: names, tags, permissions, routing keys."""
    found = overlay("prod")
    users = of_kind(found, "User")
    assert users.keys() == {role.user for role in ROLES.values()}
    permissions = of_kind(found, "Permission")
    topics = [one["spec"] for one in of_kind(found, "TopicPermission").values()]
    for role in ROLES.values():
        assert tuple(users[role.user]["spec"].get("tags", [])) == role.tags
        assert permissions[role.user]["spec"]["permissions"] == {
            "configure": role.configure,
            "write": role.write,
            "read": role.read,
        }
        assert {
            topic["permissions"]["exchange"]: topic["permissions"]["write"]
            for topic in topics
            if topic["userReference"]["name"] == role.user
        } == role.topics


def test_the_broker_is_the_one_that_compose_runs():
    """The same release, and the same `advanced.config`."""
    compose = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())
    assert cluster()["image"] == compose["services"]["rabbitmq"]["image"]
    advanced = (ROOT / "compose" / "advanced.config").read_text()
    assert cluster()["rabbitmq"]["advancedConfig"] == advanced


def test_the_broker_lets_the_longest_job_run():
    """`consumer_timeout` is well above the longest grace of a pool."""
    config = cluster()["rabbitmq"]["additionalConfig"]
    milliseconds = int(re.search(r"^consumer_timeout = (\d+)$", config, re.MULTILINE)[1])
    graces = [
        int(word.partition("=")[2])
        for one in of_kind(overlay("prod"), "Deployment").values()
        for word in container(one).get("args", [])
        if word.startswith("--grace=")
    ]
    assert milliseconds / 1000 >= 2 * max(graces)


def test_the_broker_satisfies_its_namespace():
    """Its pods are as restricted as ours, with fields that Kubernetes knows."""
    spec = cluster()["override"]["statefulSet"]["spec"]["template"]["spec"]
    for release in ("1.30", "1.37"):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "broker"}, "spec": spec},
            release,
            strict=True,
        )
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in (*spec["containers"], *spec["initContainers"]):
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_each_process_has_its_own_user():
    """A process takes the secret that the operator makes for its role; KEDA the monitor's."""
    roles = {"topology": "admin", "api": "api", "relay": "relay", "recorder": "recorder"}
    found = overlay("prod")
    for workload in of_kind(found, "Deployment", "Job").values():
        kind = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        secrets = {
            one["valueFrom"]["secretKeyRef"]["name"]
            for one in container(workload)["env"]
            if one["name"].startswith("RABBITMQ_")
        }
        wanted = set()
        if kind not in ("migrate", "scheduler"):
            wanted = {f"leveret-{roles.get(kind, kind)}-user-credentials"}
        assert secrets == wanted, workload["metadata"]["name"]
    [authentication] = of_kind(found, "TriggerAuthentication").values()
    assert {one["name"] for one in authentication["spec"]["secretTargetRef"]} == {
        f"{ROLES['monitor'].user}-user-credentials"
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_urls_refer_to_variables_that_come_before_them(name):
    """Kubernetes leaves `$(NAME)` as it stands when NAME is defined later, or not at all."""
    for workload in of_kind(overlay(name), "Deployment", "Job").values():
        known: set[str] = set()
        for variable in container(workload)["env"]:
            assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= known
            known.add(variable["name"])


def test_every_process_has_the_urls_that_it_needs():
    """With the operators, no process is left without its broker or its database."""
    needs = {
        "migrate": {"LEVERET_DATABASE_URL"},
        "topology": {"LEVERET_AMQP_URL", "LEVERET_MANAGEMENT_URL"},
        "api": {"LEVERET_AMQP_URL", "LEVERET_MANAGEMENT_URL", "LEVERET_DATABASE_URL"},
        "relay": {"LEVERET_AMQP_URL", "LEVERET_DATABASE_URL"},
        "recorder": {"LEVERET_AMQP_URL", "LEVERET_DATABASE_URL"},
        "scheduler": {"LEVERET_DATABASE_URL"},
        "worker": {"LEVERET_AMQP_URL", "LEVERET_DATABASE_URL"},
    }
    for workload in of_kind(overlay("prod"), "Deployment", "Job").values():
        kind = workload["metadata"]["labels"]["app.kubernetes.io/component"]
        has = {one["name"] for one in container(workload)["env"]}
        assert {name for name in has if name.startswith("LEVERET_")} == needs[kind], kind


# --------------------------------------------------------------------------------------------- KEDA


def scalers() -> dict[str, dict]:
    """Return the specification of each pool's scaler."""
    return {
        one["metadata"]["labels"]["leveret.dev/pool"]: one["spec"]
        for one in of_kind(overlay("prod"), "ScaledObject").values()
    }


def test_every_pool_is_scaled_and_only_bulk_to_none():
    """Each scaler has its pool's Deployment, which leaves the count to it."""
    deployments = of_kind(overlay("prod"), "Deployment")
    assert scalers().keys() == set(names.DEFAULT_QUEUES)
    for pool, spec in scalers().items():
        target = deployments[spec["scaleTargetRef"]["name"]]
        assert target["metadata"]["labels"]["leveret.dev/pool"] == pool
        assert "replicas" not in target["spec"]
        assert (spec["minReplicaCount"] == 0) is (pool == "bulk")
        assert spec["maxReplicaCount"] > spec["minReplicaCount"]


def test_the_backlog_is_that_of_the_pool_and_of_its_quarantine():
    """Of all queues that the topology has, the trigger's pattern finds these two."""
    queues = [queue.name for queue in build(names.DEFAULT_QUEUES, {}).queues]
    for pool, spec in scalers().items():
        trigger = spec["triggers"][0]
        assert trigger["type"] == "rabbitmq"
        assert trigger["metadata"]["host"] == BROKER
        pattern = trigger["metadata"]["queueName"]
        assert {queue for queue in queues if re.search(pattern, queue)} == {
            names.work_queue(pool),
            names.quarantine_queue(pool),
        }


def test_the_age_is_that_of_the_pool():
    """The query asks for a histogram that workers have, by a label that it has, of its queue."""
    for pool, spec in scalers().items():
        trigger = spec["triggers"][1]
        assert (trigger["type"], trigger["metricType"]) == ("prometheus", "Value")
        [(metric, labels)] = re.findall(
            r"(leveret_\w+)_bucket\{([^}]*)\}", trigger["metadata"]["query"]
        )
        [(label, value)] = re.findall(r'(\w+)="([^"]*)"', labels)
        [described] = metrics.JOB_QUEUE_TIME.describe()
        assert metric == described.name
        assert label in metrics.JOB_QUEUE_TIME._labelnames
        assert value == pool
        bounds = metrics.JOB_QUEUE_TIME._kwargs["buckets"]
        assert float(trigger["metadata"]["threshold"]) <= max(bounds)


# -------------------------------------------------------------------------- Prometheus, and network


def test_monitors_scrape_ports_that_there_are():
    """Our pods are scraped where their process answers."""
    monitor = of_kind(overlay("prod"), "PodMonitor")["leveret"]["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    for deployment in of_kind(overlay("prod"), "Deployment").values():
        assert wanted <= deployment["spec"]["template"]["metadata"]["labels"].items()
        ports = {port["name"] for port in container(deployment)["ports"]}
        assert {end["port"] for end in monitor["podMetricsEndpoints"]} <= ports


@pytest.mark.parametrize(
    ("policy", "variable"),
    [
        ("leveret-to-broker", "LEVERET_AMQP_URL"),
        ("leveret-to-management", "LEVERET_MANAGEMENT_URL"),
    ],
)
def test_who_has_a_url_may_use_it(policy, variable):
    """The policies let out exactly those processes that are given the address."""
    found = overlay("prod")
    [values] = [
        each["values"]
        for each in of_kind(found, "NetworkPolicy")[policy]["spec"]["podSelector"][
            "matchExpressions"
        ]
        if each["key"] == "app.kubernetes.io/component"
    ]
    assert set(values) == {
        workload["metadata"]["labels"]["app.kubernetes.io/component"]
        for workload in of_kind(found, "Deployment", "Job").values()
        if variable in {one["name"] for one in container(workload)["env"]}
    }


def test_no_pod_is_forgotten_by_the_policies():
    """The policy that denies everything else selects every pod of ours."""
    found = overlay("prod")
    deny = of_kind(found, "NetworkPolicy")["leveret"]["spec"]
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    for workload in of_kind(found, "Deployment", "Job").values():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert deny["podSelector"]["matchLabels"].items() <= labels.items()


def test_a_collector_of_traces_may_be_reached_where_the_page_says_it_is():
    """The address that the page gives is one that the policies let every process ask."""
    [address] = set(
        re.findall(
            r"OTEL_EXPORTER_OTLP_ENDPOINT=http://([\w.:-]+)",
            (ROOT / "docs/how-to/trace-jobs.md").read_text().partition("On Kubernetes")[2],
        )
    )
    name, _, port = address.partition(":")
    rules = of_kind(overlay("prod"), "NetworkPolicy")["leveret"]["spec"]["egress"]
    assert {
        "to": [
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": name.partition(".")[2]}
                }
            }
        ],
        "ports": [{"port": int(port)}],
    } in rules


def test_a_secret_of_ones_own_is_optional_with_the_operators():
    """What the operators make is enough to start, so that no empty secret has to be made."""
    for workload in of_kind(overlay("prod"), "Deployment", "Job").values():
        assert container(workload)["envFrom"][1]["secretRef"]["optional"] is True
        assert pod(workload)["containers"][0]["envFrom"][0]["configMapRef"]
