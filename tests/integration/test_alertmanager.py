"""Alertmanager with our configuration: who is told of what, and what nobody needs to be told."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.support.alerting import CONFIGURATION, Alertmanager, Webhook
from tests.support.prometheus import RULES
from tests.support.promtool import program

ALERTS = {
    rule["alert"]: rule["labels"]["severity"]
    for path in RULES.glob("*.yaml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def alert(name, severity=None, **labels):
    """Return the labels of an alert, as bad as its rule says where there is but one."""
    return {"alertname": name, "severity": severity or ALERTS[name], **labels}


@pytest.fixture
def told():
    """Return a webhook that whoever is told is behind."""
    with Webhook() as hook:
        yield hook


@pytest.fixture
def alertmanager(told, tmp_path):
    """Return an Alertmanager with our configuration and that webhook."""
    with Alertmanager(tmp_path, told) as server:
        yield server


def test_the_worst_wake_somebody_and_the_rest_can_wait(alertmanager, told):
    """By its severity each alert has its receiver; queues of one alert come as one message."""
    alertmanager.post(
        alert("LeveretQueueWithoutConsumers", "critical", queue="default"),
        alert("LeveretQueueWithoutConsumers", "critical", queue="bulk"),
        alert("LeveretNewFailure", "warning"),
    )
    assert told.wait("LeveretNewFailure").receiver == "ticket"
    assert told.wait("LeveretQueueWithoutConsumers", queue="default").receiver == "page"
    assert told.wait("LeveretQueueWithoutConsumers", queue="bulk").receiver == "page"


@pytest.mark.parametrize(
    ("causes", "spared", "not_spared"),
    [
        pytest.param(
            [alert("LeveretBrokerDown", "critical")],
            [
                alert("LeveretBrokerDown", "warning", cause="node"),
                alert("LeveretCanaryMissing"),
                alert("LeveretOutboxStuck", database="main"),
                alert("LeveretLedgerLagging"),
                alert("LeveretQueueWithoutConsumers", queue="default"),
            ],
            [alert("LeveretDatabaseDown"), alert("LeveretProcessDown", "warning", instance="a")],
            id="a broker that is down",
        ),
        pytest.param(
            [alert("LeveretBrokerDown", "warning", cause="node", instance="rabbit-1")],
            [],
            [alert("LeveretCanaryMissing"), alert("LeveretBacklogNotDraining", queue="default")],
            id="one node of three",
        ),
        pytest.param(
            [alert("LeveretBrokerAlarm")],
            [alert("LeveretOutboxStuck", database="main"), alert("LeveretCanarySlow")],
            [alert("LeveretBacklogNotDraining", queue="default")],
            id="a broker without memory, for a backlog",
        ),
        pytest.param(
            [alert("LeveretDatabaseDown")],
            [
                alert("LeveretSchedulerNoLeader"),
                alert("LeveretLedgerLagging"),
                alert("LeveretCanaryMissing"),
                alert("LeveretOutboxStuck", database="main"),
            ],
            [alert("LeveretWorkersCrashing"), alert("LeveretQueueTimeBudgetBurning", queue="bulk")],
            id="a database that is down",
        ),
        pytest.param(
            [alert("LeveretQueueWithoutConsumers", queue="bulk", broker_queue="leveret.bulk")],
            [alert("LeveretBacklogNotDraining", "critical", queue="bulk")],
            [alert("LeveretBacklogNotDraining", "critical", queue="default")],
            id="a queue that nobody serves",
        ),
        pytest.param(
            [alert("LeveretQueueTimeBudgetBurning", "critical", queue="bulk", window="1h")],
            [alert("LeveretQueueTimeBudgetBurning", "warning", queue="bulk", window="3d")],
            [alert("LeveretQueueTimeBudgetBurning", "warning", queue="default", window="3d")],
            id="one objective missed by far, another a little",
        ),
    ],
)
def test_what_follows_from_a_cause_is_not_told(alertmanager, causes, spared, not_spared):
    """Alertmanager itself says which alerts are suppressed, and by others of them."""
    alertmanager.post(*causes, *spared, *not_spared)
    states = {
        tuple(sorted(one["labels"].items())): bool(one["status"]["inhibitedBy"])
        for one in alertmanager.alerts()
    }
    for labels in (*causes, *spared, *not_spared):
        assert states[tuple(sorted(labels.items()))] == (labels in spared), labels


def test_the_configuration_names_alerts_that_there_are():
    """An alert that is renamed would come beside its cause again."""
    for rule in yaml.safe_load(CONFIGURATION.read_text())["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, pattern = re.fullmatch(r'(\w+) =~? "?([^"]+?)"?', matcher).groups()
            for one in pattern.split("|") if label == "alertname" else ():
                assert any(re.fullmatch(one, name) for name in ALERTS), one


def test_the_examples_of_receivers_are_valid(tmp_path):
    """Whoever takes the marks off the comments has a configuration that Alertmanager reads."""
    text = CONFIGURATION.read_text()
    examples = [
        block
        for block in re.findall(r"(?:^#     .*\n)+", text, re.MULTILINE)
        if "_configs:" in block
    ]
    assert len(examples) == 4
    document = yaml.safe_load(text)
    for example in examples:
        document["receivers"][0] |= yaml.safe_load(re.sub(r"^# ", "", example, flags=re.MULTILINE))
    document["templates"] = [str(CONFIGURATION.parent / "*.tmpl")]
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [program("amtool"), "check-config", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 templates" in done.stdout
