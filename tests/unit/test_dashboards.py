"""The dashboards: fresh, readable by Grafana, and of metrics that there are."""

from __future__ import annotations

import json
import re

import promql_parser
import pytest
import yaml

from compose.grafana import DASHBOARDS, FOLDER, files
from compose.grafana.answer import Window, asked, panels, substituted
from compose.grafana.query import Like, broker, gauge, rate, recorded
from leveret import metrics
from tests.support.pages import ROOT

COMPOSE = ROOT / "compose" / "grafana"
RULES = ROOT / "compose" / "prometheus" / "rules"
DOCUMENTS = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in DASHBOARDS}
PANELS = [
    pytest.param(panel, id=f"{name}-{panel['id']}")
    for name, document in DOCUMENTS.items()
    for panel in panels(document)
]
WINDOW = Window(start=0, end=3600)
#: What is chosen at the top of a page.
CHOSEN = {"queue": ".*", "actor": "email.send"}
#: What Prometheus and its clients know of themselves.
PROMETHEUS = {"ALERTS", "up"}


def test_the_files_are_as_the_code_builds_them():
    """`make dashboards` writes them; a dashboard that is gone leaves no file."""
    stale = [path.name for path, text in files().items() if path.read_text() != text]
    assert not stale
    assert set(FOLDER.iterdir()) == set(files())


def test_each_dashboard_has_a_name_of_its_own():
    """Links lead to an uid, and people to a title."""
    assert [document["uid"] for document in DOCUMENTS.values()] == [
        f"leveret-{n}" for n in DOCUMENTS
    ]
    assert len({document["title"] for document in DOCUMENTS.values()}) == len(DOCUMENTS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_and_titles_of_their_own_and_do_not_overlap(name):
    """A link to a panel is its id; Grafana moves panels that overlap."""
    found = DOCUMENTS[name]["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)
    taken = set()
    for panel in found:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_begins_with_traffic_lights_and_is_readable_at_once(name):
    """What somebody wants who was just woken up comes first."""
    found = panels(DOCUMENTS[name])
    first = [panel for panel in found if panel["gridPos"]["y"] == 0]
    assert {panel["type"] for panel in first} == {"stat"}
    assert sum(panel["gridPos"]["w"] for panel in first) == 24
    assert len([panel for panel in found if panel["type"] != "stat"]) <= 13


@pytest.mark.parametrize("panel", PANELS)
def test_each_panel_says_in_which_unit_what_it_means_and_what_to_do(panel):
    """A graph that nobody can act on is decoration."""
    assert panel["fieldConfig"]["defaults"]["unit"]
    means, _, do = panel["description"].partition("\n\n**What to do.** ")
    assert means.endswith(".")
    assert do.endswith(".")


@pytest.mark.parametrize("panel", PANELS)
def test_queries_are_promql_of_metrics_that_there_are(panel):
    """A metric that is renamed would leave an empty panel behind."""
    known = _shown() | PROMETHEUS | _recorded()
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        expression = substituted(target["expr"], CHOSEN | WINDOW.variables())
        names = _metrics(promql_parser.parse(expression))
        assert names, expression
        assert {n for n in names if not n.startswith("rabbitmq_")} <= known, expression


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_dashboards_lead_to_each_other_and_to_the_runbooks(document):
    """With what is chosen, and the time shown."""
    others, runbooks = document["links"]
    assert (others["type"], others["tags"]) == ("dashboards", ["leveret"])
    assert others["includeVars"]
    assert others["keepTime"]
    assert "leveret" in document["tags"]
    assert runbooks["url"].startswith("${docs}/runbooks/")
    uids = {f"/d/{other['uid']}" for other in DOCUMENTS.values()}
    linked = re.findall(r'"url": "(/d/[a-z-]+)', json.dumps(document))
    assert set(linked) <= uids


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_variables_are_asked_for_and_used(document):
    """A choice that changes nothing misleads."""
    names = {variable["name"] for variable in document["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps([document["panels"], document["links"]])))
    assert names <= used
    assert used - names <= {"docs"}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_deploys_are_marked(document):
    """Most faults begin with one."""
    (mark,) = document["annotations"]["list"]
    assert "leveret_build_info" in _metrics(promql_parser.parse(mark["expr"]))


def test_each_alert_of_the_rules_has_the_page_of_its_runbook():
    """The table of alerts leads from each to its page."""
    (table,) = [panel for panel in panels(DOCUMENTS["overview"]) if panel["type"] == "table"]
    expression = table["targets"][0]["expr"]
    for path in RULES.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    page = rule["annotations"]["runbook_url"].partition("#")[0]
                    assert page == f"docs/runbooks/{path.stem}.md"
                    assert re.search(
                        rf'"{path.stem}", "alertname", "[^"]*{rule["alert"]}', expression
                    )


def test_latency_panels_show_exemplars():
    """From a point of a latency panel one gets to the trace of that job."""
    shown = {
        panel["title"]
        for document in DOCUMENTS.values()
        for panel in panels(document)
        if any(target.get("exemplar") for target in panel["targets"])
    }
    assert shown == {"Time in queue", "Time of runs", "Time to confirm"}


def test_a_query_of_what_there_is_not_cannot_be_written():
    """The build breaks, not the panel."""
    with pytest.raises(LookupError, match="no label colour"):
        rate(metrics.JOBS, "colour")
    with pytest.raises(LookupError, match="no label actor"):
        gauge(metrics.WORKER_THREADS, "sum", actor="email.send")
    with pytest.raises(LookupError, match="no rule"):
        recorded("leveret:backlog_fortnights")
    with pytest.raises(KeyError):
        broker("rabbitmq_queue_mass")
    assert rate(metrics.JOBS, "queue", actor="$actor", outcome=Like("a|b")) == (
        'sum by (queue) (rate(leveret_jobs_total{actor=~"$actor", outcome=~"a|b"}'
        "[$__rate_interval]))"
    )


def test_variables_are_replaced_as_grafana_does():
    """Its own from the time shown, others by what is chosen; references of regexps stay."""
    window = Window(start=0, end=7200, points=240)
    assert window.variables() == {
        "__rate_interval": "60000ms",
        "__interval": "30000ms",
        "__range": "7200s",
    }
    text = 'label_replace(rate(x{q=~"$queue"}[$__rate_interval]), "a", "$1", "b", "${queue}")'
    values = {"queue": "a|b", **window.variables()}
    assert substituted(text, values) == (
        'label_replace(rate(x{q=~"a|b"}[60000ms]), "a", "$1", "b", "a|b")'
    )
    with pytest.raises(LookupError, match=r"\$actor has no value"):
        list(asked({"panels": [_panel("x{actor='$actor'}")]}, {}, window))


def test_grafana_is_provisioned_with_them():
    """Data source and dashboards stand where compose.yaml mounts them, and name what is there."""
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
    mounted = {
        source: target
        for source, target, *_ in (
            volume.split(":") for volume in services["grafana"]["volumes"] if volume[0] == "."
        )
    }
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    provisioning = COMPOSE / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "leveret.yaml").read_text())[
        "providers"
    ]
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    scraped = yaml.safe_load((ROOT / "compose" / "prometheus" / "prometheus.yml").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]


def _panel(expression):
    return {
        "id": 1,
        "type": "stat",
        "title": "One",
        "targets": [{"refId": "A", "expr": expression}],
    }


def _recorded():
    return {
        rule["record"]
        for path in RULES.glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def _metrics(expression):
    """Return the names of the metrics in a parsed expression."""
    found = set()

    def note(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.add(node.vector_selector.name)

    promql_parser.walk(expression, note)
    return found


def _shown():
    """Return the names of all samples that processes show."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + suffix
        for name in metrics.__all__
        for family in getattr(getattr(metrics, name), "describe", list)()
        for suffix in suffixes.get(family.type, ("",))
    }
