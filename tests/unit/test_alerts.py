"""The alerts: each fires when it should and only then, and leads to a page that says what to do."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess

import pytest
import typer.main
import yaml
from prometheus_client.metrics import MetricWrapperBase

from leveret import metrics, names
from leveret.cli.app import app
from leveret.names import DEFAULT_QUEUES
from leveret.settings import Settings
from tests.support.manifests import objects, of_kind
from tests.support.pages import ROOT
from tests.support.promtool import promtool

RULES = sorted((ROOT / "compose" / "prometheus" / "rules").glob("*.yaml"))
INDEX = ROOT / "docs" / "runbooks" / "index.md"
RUNBOOKS = sorted(set((ROOT / "docs" / "runbooks").glob("*.md")) - {INDEX})
SCALERS = ROOT / "k8s" / "components" / "keda"
#: The cases of the rules of a file are in the file of its name here.
CASES = ROOT / "tests" / "unit" / "alerts"


def _rules(path):
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def _alerts(path):
    return [rule for rule in _rules(path) if "alert" in rule]


RULED = [
    pytest.param(rule, id=rule.get("alert", rule.get("record")))
    for path in RULES
    for rule in _rules(path)
]
RECORDED = {rule["record"] for path in RULES for rule in _rules(path) if "record" in rule}
ALERTS = [pytest.param(rule, id=rule["alert"]) for path in RULES for rule in _alerts(path)]


def _samples():
    """Return the names of all samples that processes show."""
    found = set()
    for name in metrics.__all__:
        collector = getattr(metrics, name)
        assert isinstance(collector, MetricWrapperBase)
        for family in collector.describe():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
            found |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return found


@pytest.mark.parametrize(
    ("what", "files"),
    [("check", RULES), ("test", sorted(CASES.glob("*.yaml")))],
    ids=["check", "test"],
)
def test_rules_hold_in_their_cases(what, files):
    """Prometheus itself reads the rules, and evaluates them on the series of each case."""
    done = subprocess.run(
        [promtool(), what, "rules", *files],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_not(path):
    """An alert that always fires, or never, is worse than none. Each of several of a name fires."""
    quiet, fired = set(), []
    for file in (CASES / path.name, CASES / f"{path.stem}-days.yaml"):
        for case in yaml.safe_load(file.read_text())["tests"] if file.exists() else []:
            for one in case.get("alert_rule_test", []):
                if not one["exp_alerts"]:
                    quiet.add(one["alertname"])
                fired += [(one["alertname"], alert["exp_labels"]) for alert in one["exp_alerts"]]
    assert quiet == {rule["alert"] for rule in _alerts(path)}
    for rule in _alerts(path):
        assert any(
            name == rule["alert"] and rule["labels"].items() <= labels.items()
            for name, labels in fired
        ), f"{rule['alert']} {rule['labels']} never fires"


def test_a_fresh_installation_is_asked_for_every_alert():
    """Nothing of what was never used may be taken for something that is missing."""
    [case] = yaml.safe_load((CASES / "fresh.yaml").read_text())["tests"]
    asked = {one["alertname"] for one in case["alert_rule_test"]}
    assert asked == {rule["alert"] for path in RULES for rule in _alerts(path)}
    assert not any(one["exp_alerts"] for one in case["alert_rule_test"])


@pytest.mark.parametrize("rule", RULED)
def test_rules_name_metrics_that_there_are(rule):
    """A metric that is renamed would silence its alert."""
    named = set(re.findall(r"leveret_[a-z_]+", rule["expr"]))
    recorded = set(re.findall(r"leveret:[a-z0-9_:]+", rule["expr"]))
    others = set(re.findall(r"rabbitmq_[a-z_]+|\bup\b|^vector\(", rule["expr"]))
    assert named | recorded | others
    assert named <= _samples()
    assert recorded <= RECORDED


@pytest.mark.parametrize("rule", ALERTS)
def test_each_alert_says_what_is_wrong_and_where_to_read_on(rule):
    """A summary, a description, how bad it is, and a section of a runbook with its name."""
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    summary, description = (
        re.sub(r"\{\{.*?\}\}", "", notes[part]) for part in ("summary", "description")
    )
    assert len(description) > len(summary)
    page, _, anchor = notes["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    section = (
        (ROOT / page).read_text().partition(f"\n## {rule['alert']}\n")[2].partition("\n## ")[0]
    )
    for part in ("**Means.**", "**Look.**", "**Mend.**"):
        assert part in section, f"{page} does not say {part} of {rule['alert']}"


def test_the_index_of_runbooks_leads_to_the_section_of_every_alert():
    """Each once, by its name; and to none that there is not."""
    index = (ROOT / "docs" / "runbooks" / "index.md").read_text().partition("## All alerts")[2]
    listed = re.findall(r"\| \[(\w+)\]\(([\w-]+\.md)#(\w+)\) \|", index)
    wanted = {(rule["alert"], path.stem) for path in RULES for rule in _alerts(path)}
    assert {(name, page.removesuffix(".md")) for name, page, _ in listed} == wanted
    assert len(listed) == len(wanted)
    assert all(anchor == name.lower() for name, _, anchor in listed)


@pytest.mark.parametrize("page", [*RUNBOOKS, INDEX], ids=lambda page: page.stem)
def test_runbooks_give_commands_that_there_are(page):
    """At night nobody wants to find out that a command has another name by now."""
    lines = list(_lines(page, "bash", "sh"))
    assert lines
    for line in lines:
        for stage in _stages(line):
            program, *words = stage
            assert program in _CHECKS, line
            _CHECKS[program](words)


@pytest.mark.parametrize("page", [*RUNBOOKS, INDEX], ids=lambda page: page.stem)
def test_runbooks_name_services_of_the_compose_file(page):
    """Also where a command stands in a sentence."""
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
    named = re.findall(r"docker compose (?:up|restart|logs|exec|run)\b([^`\n]*)", page.read_text())
    for words in named:
        plain = [word for word in words.split() if not word.startswith("-") and word != "…"]
        wanted = re.sub(r"=\d+$", "", plain[0])
        assert {wanted.replace("QUEUE", queue) for queue in DEFAULT_QUEUES} <= set(services), words


def _lines(page, *languages):
    """Return the commands in the blocks of a page that are of these languages."""
    fence = rf"^ *```(?:{'|'.join(languages)})\n(.*?)^ *```$"
    for block in re.findall(fence, page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if shlex.split(line, comments=True):
                yield line


def _stages(line):
    """Return the words of each command of a pipe."""
    stage = []
    for word in shlex.split(line, comments=True):
        if word == "|":
            yield stage
            stage = []
        else:
            stage.append(word)
    yield stage


def _check_leveret(words):
    """Check that it is a command, with options that it has."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), words
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, words


def _check_rabbitmq(words):
    """Check that our virtual host is named where one is: left out, it would be another."""
    if words[0] in ("list_queues", "list_policies", "set_policy", "clear_policy"):
        assert words[1:3] == ["-p", "leveret"], words


def _check_curl(words):
    """Check that it asks for a page of every process, or for one of the API."""
    (url,) = [word for word in words if "/" in word and not word.startswith("-")]
    path = url.removeprefix("http://HOST")
    assert path in ("/livez", "/readyz", "/metrics") or path.startswith("/v1/"), url


def _check_kubectl(words):
    """Check that what it names is in the manifests, in our namespace."""
    assert words[:2] == ["-n", "leveret"], words
    text = " ".join(words[2:])
    found = objects("overlays/prod")
    deployments = set(of_kind(found, "Deployment"))
    for name in re.findall(r"deploy(?:ment)?[/ ](\S+)", text):
        plain = name.replace("NAME", "relay")
        assert {plain.replace("QUEUE", queue) for queue in DEFAULT_QUEUES} <= deployments, name
    clusters = {f"{name}-server" for name in of_kind(found, "RabbitmqCluster")}
    for name in re.findall(r"statefulset/(\S+)", text):
        assert name in clusters, name
    settings = {f"LEVERET_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert set(re.findall(r"LEVERET_[A-Z_]+", text)) <= settings, text


#: What a runbook may have in its commands, and what is looked at in each; tests run them all.
_CHECKS = {
    "leveret": _check_leveret,
    "rabbitmqctl": _check_rabbitmq,
    "rabbitmq-diagnostics": _check_rabbitmq,
    "curl": _check_curl,
    "kubectl": _check_kubectl,
    **dict.fromkeys(("awk", "grep", "head", "sort", "tail"), lambda _words: None),
}


def test_objectives_are_bounds_of_the_histogram_and_those_of_scaling():
    """Otherwise no bucket counts what was in time, or KEDA aims at something else than alerts."""
    objectives = {
        rule["labels"]["queue"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for path in RULES
        for rule in _rules(path)
        if rule.get("record") == "leveret:queue_time_objective_seconds"
    }
    assert set(objectives.values()) <= set(metrics.DURATION_BUCKETS)
    scaled = {
        queue: yaml.safe_load((SCALERS / f"{queue}.yaml").read_text())["spec"]["triggers"][1]
        for queue in names.DEFAULT_QUEUES
    }
    assert objectives == {
        queue: float(trigger["metadata"]["threshold"]) for queue, trigger in scaled.items()
    }
