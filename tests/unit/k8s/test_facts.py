"""What the manifests say of queues, ports, settings and commands is what the code says."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from datetime import timedelta

import pytest
import typer.main

from actors import settings as actor_settings
from leveret import names
from leveret.broker import LeveretBroker, unwrapped
from leveret.cli.app import app
from leveret.declaration import load_actors
from leveret.settings import Settings
from scheduler import scheduler
from services.api import server
from services.relay import relay
from services.worker.options import parse
from tests.support.manifests import (
    COMPONENTS,
    K8S,
    OVERLAYS,
    WORKLOADS,
    container,
    documents,
    of_kind,
    overlay,
    pod,
)
from tests.support.pages import ROOT

POOL = "leveret.dev/pool"
#: What a worker needs beside its grace: it says good-bye to its children, and a spare second or 5.
FAREWELL_SECONDS = 10
#: Where the actors are that everybody has; the process may have declared others.
SHIPPED = ("actors.", "leveret.housekeeping")
#: An actor that names no time limit has this one.
USUAL_LIMIT = timedelta(minutes=10)


def known_settings() -> dict[str, bool]:
    """Return every variable that the code reads, and whether it is a secret."""
    known = {f"LEVERET_{item.name.upper()}": item.metadata["secret"] for item in fields(Settings)}
    for group in vars(actor_settings).values():
        for item in getattr(group, "__dataclass_fields__", {}).values():
            known[item.metadata["variable"]] = not item.repr
    # Its name may go on with a word of the operators'.
    return {**known, "LEVERET_WEBHOOK_SECRET": True}


def settings_of(found) -> dict[str, str]:
    """Return the config map's settings."""
    [settings] = [
        one
        for name, one in of_kind(found, "ConfigMap").items()
        if name.startswith("leveret-settings-")
    ]
    return settings["data"]


def pools(found):
    """Return the pools' Deployments by the name of their pool."""
    return {
        one["metadata"]["labels"][POOL]: one
        for one in of_kind(found, "Deployment").values()
        if POOL in one["metadata"]["labels"]
    }


def options(deployment, settings):
    """Read a pool's command line as the worker would."""
    variables = Settings.from_env(settings)
    return parse(container(deployment)["args"], variables)


def longest_limit(queue: str) -> timedelta:
    """Return how long a job of a queue may run: an actor that ships, or one that says nothing."""
    broker: LeveretBroker = load_actors(["actors"], queues=names.DEFAULT_QUEUES, housekeeping=True)
    limits = [
        broker.policy(name).time_limit
        for name, actor in broker.actors.items()
        if actor.queue_name == queue and unwrapped(actor.fn).__module__.startswith(SHIPPED)
    ]
    return max([USUAL_LIMIT, *(limit for limit in limits if limit is not None)])


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_setting_exists_and_is_valid(name):
    """The settings in the config map are read by the code, which accepts their values."""
    settings = settings_of(overlay(name))
    assert settings.keys() <= known_settings().keys()
    Settings.from_env(settings)


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_stands_in_a_manifest(name):
    """No setting with a secret in it has a value; no object is a Secret."""
    found = overlay(name)
    secrets = {variable for variable, secret in known_settings().items() if secret}
    assert not of_kind(found, "Secret")
    assert not settings_of(found).keys() & secrets
    for workload in of_kind(found, *WORKLOADS).values():
        for variable in container(workload).get("env", []):
            assert variable["name"] not in secrets or is_reference(variable), variable["name"]


def is_reference(variable) -> bool:
    """Tell whether a variable's value is, or is made of, what other objects keep."""
    password = re.search(r"://[^@/]*:([^@/]*)@", variable.get("value", ""))
    return "valueFrom" in variable or bool(password and re.match(r"\$\(\w+\)$", password[1]))


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_variable_of_a_container_is_a_setting(name):
    """What a container sets by itself under our prefix is read by the code."""
    for workload in of_kind(overlay(name), *WORKLOADS).values():
        for variable in container(workload).get("env", []):
            if variable["name"].startswith("LEVERET_"):
                assert variable["name"] in known_settings()


def test_the_example_of_secrets_has_what_is_referred_to():
    """One for each secret that a workload reads; its keys are settings that hide their value."""
    example = of_kind(documents(K8S / "secrets.example.yaml"), "Secret")
    referred = {
        source["secretRef"]["name"]
        for workload in of_kind(overlay("dev"), *WORKLOADS).values()
        for source in container(workload)["envFrom"]
        if "secretRef" in source
    }
    assert example.keys() == referred
    secrets = {variable for variable, secret in known_settings().items() if secret}
    for one in example.values():
        assert one["stringData"].keys() <= secrets
        Settings.from_env(one["stringData"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_settings_come_before_secrets(name):
    """Of two sources the later wins, so that an operator's secret can overrule the defaults."""
    for workload in of_kind(overlay(name), *WORKLOADS).values():
        kinds = [next(iter(source)) for source in container(workload)["envFrom"]]
        assert kinds == ["configMapRef", "secretRef"]


# ----------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_command_exists(name):
    """`python -m` names a module that can be run, and `leveret` a command that it has."""
    commands = typer.main.get_command(app)
    for workload in of_kind(overlay(name), *WORKLOADS).values():
        match container(workload)["command"]:
            case ["python", "-m", module]:
                assert importlib.util.find_spec(f"{module}.__main__") is not None
            case ["leveret", *words]:
                command = commands
                for word in words:
                    command = command.commands[word]
            case other:
                pytest.fail(f"{workload['metadata']['name']} runs {other}")


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_ask_where_the_process_answers(name):
    """The port is LEVERET_HTTP_PORT, on every address; life and readiness are not the same."""
    found = overlay(name)
    settings = Settings.from_env(settings_of(found))
    assert settings.http_host == "0.0.0.0"
    for deployment in of_kind(found, "Deployment").values():
        only = container(deployment)
        assert only["ports"] == [{"name": "http", "containerPort": settings.http_port}]
        asked = {
            kind: only[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
        }
        assert {probe["port"] for probe in asked.values()} == {"http"}
        assert {kind: probe["path"] for kind, probe in asked.items()} == {
            "startup": "/livez",
            "liveness": "/livez",
            "readiness": "/readyz",
        }


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pod_that_is_beyond_help_is_not_waited_for(name):
    """When the liveness probe fails, the pool's grace does not count: it may be hours."""
    for deployment in of_kind(overlay(name), "Deployment").values():
        probe = container(deployment)["livenessProbe"]
        assert probe["terminationGracePeriodSeconds"] == 60
        assert probe["periodSeconds"] * probe["failureThreshold"] == 30


@pytest.mark.parametrize("name", OVERLAYS)
def test_services_and_budgets_select_pods(name):
    """Each selector finds the pods of exactly one Deployment."""
    found = overlay(name)
    labels = {
        key: one["spec"]["template"]["metadata"]["labels"]
        for key, one in of_kind(found, "Deployment").items()
    }
    ours = {
        key: one
        for key, one in of_kind(found, "Service", "PodDisruptionBudget").items()
        if key not in of_kind(found, "RabbitmqCluster", "StatefulSet")
    }
    for one in ours.values():
        selector = one["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        selected = [key for key, has in labels.items() if wanted <= has.items()]
        assert selected == [one["metadata"]["name"]]
    assert ours.keys() == labels.keys()


# -------------------------------------------------------------------------------------------- pools


@pytest.mark.parametrize("name", OVERLAYS)
def test_there_is_a_pool_for_every_queue(name):
    """And each takes its own queue alone."""
    found = overlay(name)
    settings = settings_of(found)
    assert pools(found).keys() == set(Settings.from_env(settings).queues)
    for pool, deployment in pools(found).items():
        assert options(deployment, settings).queues == (pool,)
        assert container(deployment)["command"] == ["python", "-m", "services.worker"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pool_says_how_many_jobs_run_at_a_time(name):
    """The worker's own default would count the processors of the node, not those of the pod."""
    for pool, deployment in pools(overlay(name)).items():
        given = {word.partition("=")[0] for word in container(deployment)["args"]}
        assert given >= {"--queues", "--threads", "--processes", "--grace"}, pool


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pool_is_given_the_time_to_drain(name):
    """The grace is the longest time limit of the queue's actors, and Kubernetes waits longer."""
    found = overlay(name)
    for pool, deployment in pools(found).items():
        grace = options(deployment, settings_of(found)).grace
        assert timedelta(seconds=grace) == longest_limit(pool), pool
        pause = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
        patience = pod(deployment)["terminationGracePeriodSeconds"]
        assert patience == pause + grace + FAREWELL_SECONDS, pool


@pytest.mark.parametrize(
    ("component", "grace"),
    [
        ("api", server._GRACE_SECONDS),
        ("relay", relay._GRACE_SECONDS),
        ("scheduler", scheduler._GRACE_SECONDS),
    ],
)
def test_a_process_is_given_the_time_to_end(component, grace):
    """Kubernetes waits at least twice as long as the process itself, after `preStop`."""
    deployment = of_kind(overlay("prod"), "Deployment")[f"leveret-{component}"]
    pause = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(deployment)["terminationGracePeriodSeconds"] >= pause + 2 * grace


@pytest.mark.parametrize("name", OVERLAYS)
def test_pools_differ_in_who_gives_way(name):
    """Bulk gives way to the rest, and everything to what is critical; all classes exist."""
    found = overlay(name)
    classes = of_kind(found, "PriorityClass")
    value = {
        pool: classes[pod(one)["priorityClassName"]]["value"] for pool, one in pools(found).items()
    }
    assert value["bulk"] < value["scheduled"] == value["default"] < value["critical"]
    assert {pod(one)["priorityClassName"] for one in of_kind(found, "Deployment").values()} == (
        classes.keys()
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_roll_out_takes_nothing_away_before_its_replacement_is_ready(name):
    """Every Deployment surges."""
    for deployment in of_kind(overlay(name), "Deployment").values():
        strategy = deployment["spec"]["strategy"]["rollingUpdate"]
        assert strategy == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_first_phase_is_complete_in_itself(name):
    """Applying what is labelled `setup` alone starts the Jobs and all that they refer to."""
    found = overlay(name)
    first = [
        one
        for one in found
        if one["metadata"].get("labels", {}).get("leveret.dev/phase") == "setup"
    ]
    assert of_kind(first, "Job").keys() == of_kind(found, "Job").keys()
    assert not of_kind(first, "Deployment")
    for job in of_kind(first, "Job").values():
        assert pod(job)["serviceAccountName"] in of_kind(first, "ServiceAccount")
        settings = container(job)["envFrom"][0]["configMapRef"]["name"]
        assert settings in of_kind(first, "ConfigMap")


# -------------------------------------------------------------------------------------------- pages


def table(page: str, first: str) -> dict[str, list[str]]:
    """Return the rows of the table whose first column has this title, by their first cell."""
    lines = (ROOT / "docs" / "how-to" / page).read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        key, *cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        rows[key] = cells
    return rows


def test_the_page_on_deploying_tells_what_the_pools_are():
    """Its table has the numbers of the manifests."""
    found = overlay("prod")
    told = {}
    for pool, deployment in pools(found).items():
        asked = options(deployment, settings_of(found))
        told[pool] = [
            str(asked.threads),
            str(asked.processes),
            f"{asked.grace:.0f} s",
            f"{pod(deployment)['terminationGracePeriodSeconds']} s",
            pod(deployment)["priorityClassName"],
        ]
    assert table("deploy-on-kubernetes.md", "pool") == told


def test_the_page_on_scaling_tells_what_the_triggers_are():
    """Its table has the numbers of the scalers."""
    told = {}
    for one in of_kind(overlay("prod"), "ScaledObject").values():
        spec = one["spec"]
        backlog, age = (trigger["metadata"] for trigger in spec["triggers"])
        told[one["metadata"]["labels"][POOL]] = [
            f"{spec['minReplicaCount']} to {spec['maxReplicaCount']}",
            backlog["value"],
            f"{age['threshold']} s",
        ]
    assert table("scale-a-pool.md", "pool") == told


def test_the_page_on_deploying_lists_every_component():
    """Its first table names each folder of k8s/, and no other."""
    named = {
        each for cell in table("deploy-on-kubernetes.md", "folder") for each in cell.split("`, `")
    }
    there = {f"k8s/components/{component}" for component in COMPONENTS}
    there |= {f"k8s/overlays/{name}" for name in OVERLAYS}
    assert named == there | {"k8s/base", "k8s/secrets.example.yaml"}
