"""The alerts: each fires when it should and only then, and leads to a page that says what to do."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
import typer.main
import yaml
from prometheus_client.metrics import MetricWrapperBase

from leveret import metrics
from leveret.cli.app import app
from tests.support.pages import ROOT
from tests.support.promtool import promtool

RULES = sorted((ROOT / "compose" / "prometheus" / "rules").glob("*.yaml"))
INDEX = ROOT / "docs" / "runbooks" / "index.md"
RUNBOOKS = sorted(set((ROOT / "docs" / "runbooks").glob("*.md")) - {INDEX})
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


@pytest.mark.timeout(240)  # promtool may have to be fetched first
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


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_runbooks_give_commands_that_there_are(page):
    """At night nobody wants to find out that a command has another name by now."""
    fences = re.findall(r"^ *```bash\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for fence in fences for line in fence.splitlines() if line.strip()]
    assert lines
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "leveret", line
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), line
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
