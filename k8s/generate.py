"""Write what k8s/ has from elsewhere in this tree: RabbitMQ's users, alert rules, dashboards.

Kustomize reads nothing outside the folder that it is in, so that the rest are copies.

``python -m k8s.generate`` writes it, ``python -m k8s.generate --check`` names what is stale and
ends with status 1 if anything is. A test does the same. Everything else in k8s/ is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from leveret.topology import ROLES, Role

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ROOT / "k8s" / "components"
USERS = COMPONENTS / "rabbitmq-cluster-operator" / "users.yaml"
ADVANCED = COMPONENTS / "throwaway-servers" / "advanced.config"
RULES = COMPONENTS / "prometheus-operator" / "rules"
DASHBOARDS = COMPONENTS / "grafana"
#: Where they come from.
ADVANCED_SOURCE = ROOT / "compose" / "advanced.config"
RULE_SOURCES = ROOT / "compose" / "prometheus" / "rules"
DASHBOARD_SOURCES = ROOT / "compose" / "grafana" / "dashboards"
NOTE = "# Written by `python -m k8s.generate` from {source}. Do not edit.\n"
CLUSTER = "leveret-rabbitmq"
VHOST = "leveret"


def files() -> dict[Path, str]:
    """Return every generated file as it should be."""
    return {
        USERS: users(),
        ADVANCED: ADVANCED_SOURCE.read_text(),
        **rules(),
        **dashboards(),
    }


def stale() -> list[Path]:
    """Return the files that are not as they should be: missing, different, or without a source."""
    wanted = files()
    there = {
        path for folder in (RULES, DASHBOARDS / "dashboards") for path in sorted(folder.glob("*"))
    }
    differs = [path for path, text in wanted.items() if not _has(path, text)]
    return [*differs, *sorted(there - wanted.keys())]


def main() -> int:
    """Write the files, or with ``--check`` only compare them."""
    wanted, check = files(), "--check" in sys.argv[1:]
    found = stale()
    for path in found:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if check:
            continue
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()
    return 1 if check and found else 0


def _has(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


# -------------------------------------------------------------------------------------------- users


def users() -> str:
    """Write a user for each role, with its permissions, as the topology operator takes them.

    The operator makes each a name and a password, and keeps them in the secret
    ``<user>-user-credentials``. The scheduler has no role, since it knows no broker.
    """
    head = NOTE.format(source="leveret/topology/roles.py")
    vhost = _resource("Vhost", VHOST, f"name: {VHOST}")
    return head + "---\n".join([vhost, *(text for role in ROLES.values() for text in _user(role))])


def _user(role: Role) -> Iterator[str]:
    yield _resource("User", role.user, *([f"tags: [{', '.join(role.tags)}]"] if role.tags else []))
    yield _resource(
        "Permission",
        role.user,
        f"vhost: {VHOST}",
        *("userReference:", f"  name: {role.user}"),
        "permissions:",
        *(
            f"  {right}: {_quoted(getattr(role, right))}"
            for right in ("configure", "write", "read")
        ),
    )
    for exchange, keys in sorted(role.topics.items()):
        yield _resource(
            "TopicPermission",
            f"{role.user}.{exchange.rpartition('.')[2]}",
            f"vhost: {VHOST}",
            *("userReference:", f"  name: {role.user}"),
            "permissions:",
            f"  exchange: {exchange}",
            f"  write: {_quoted(keys)}",
        )


def _resource(kind: str, name: str, *spec: str) -> str:
    lines = (
        "apiVersion: rabbitmq.com/v1beta1",
        f"kind: {kind}",
        "metadata:",
        f"  name: {name}",
        "  labels:",
        "    leveret.dev/phase: setup",
        "spec:",
        "  rabbitmqClusterReference:",
        f"    name: {CLUSTER}",
        *(f"  {line}" for line in spec),
    )
    return "".join(f"{line}\n" for line in lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# ------------------------------------------------------------------------------- rules, dashboards


def rules() -> dict[Path, str]:
    """Wrap each file of Prometheus rules in a PrometheusRule, comments and all."""
    made = {}
    for source in sorted(RULE_SOURCES.glob("*.y*ml")):
        body = "".join(
            f"  {line}\n" if line.strip() else "\n"
            for line in source.read_text().splitlines()
            if line != "---"
        )
        made[RULES / f"{source.stem}.yaml"] = (
            NOTE.format(source=source.relative_to(ROOT).as_posix())
            + "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n"
            + f"  name: leveret-{source.stem}\nspec:\n{body}"
        )
    resources = "".join(f"  - {path.name}\n" for path in made)
    made[RULES / "kustomization.yaml"] = (
        NOTE.format(source="compose/prometheus/rules")
        + "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        # Kustomize refuses a file that asks for nothing.
        + (f"resources:\n{resources}" if resources else "generatorOptions: {labels: {}}\n")
    )
    return made


def dashboards() -> dict[Path, str]:
    """Copy each dashboard, and list it as a ConfigMap of its own, which Grafana's sidecar finds."""
    made = {
        DASHBOARDS / "dashboards" / source.name: source.read_text()
        for source in sorted(DASHBOARD_SOURCES.glob("*.json"))
    }
    for text in made.values():
        json.loads(text)
    entries = "".join(
        f"  - name: leveret-dashboard-{path.stem}\n    files: [dashboards/{path.name}]\n"
        for path in made
    )
    made[DASHBOARDS / "kustomization.yaml"] = (
        NOTE.format(source="compose/grafana/dashboards")
        + "# Grafana's sidecar loads every ConfigMap with this label.\n"
        + "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        + "generatorOptions:\n  disableNameSuffixHash: true\n"
        + '  labels:\n    grafana_dashboard: "1"\n'
        + (f"configMapGenerator:\n{entries}" if entries else "")
    )
    return made


if __name__ == "__main__":
    sys.exit(main())
