"""An Alertmanager that tells the test, and rules that need seconds where ours need minutes.

with Webhook() as told, Alertmanager(folder, told) as alertmanager:
rules = shortened(folder, 40)
with Prometheus(folder, targets, rules=rules, alertmanagers=[alertmanager.port]):
...
told.wait("LeveretDatabaseDown")
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import httpx
import yaml

from compose.native import ports
from tests.support.processes import ROOT
from tests.support.prometheus import RULES
from tests.support.waiting import wait_until
from tests.support.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CONFIGURATION = ROOT / "compose" / "alertmanager" / "alertmanager.yml"

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)\b")
_WINDOW = re.compile(r"\[[^\]]*\]|\boffset \w+")


def shorter(text: str, factor: float) -> str:
    """Divide every duration in a text; Prometheus knows none below a millisecond."""
    return _DURATION.sub(
        lambda found: f"{max(1, round(int(found[1]) * _SECONDS[found[2]] * 1000 / factor))}ms", text
    )


def shortened(
    folder: Path,
    factor: float,
    *,
    gauges: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
) -> list[Path]:
    """Write our rules anew with every window and every `for` divided by a factor; return the files.

    The limit that one of ``gauges`` is compared with, in seconds, is divided as well. A recording
    rule among ``values`` has that value. Nothing else is another.
    """
    limit = re.compile(rf"((?:{'|'.join(gauges)})\)? > )(\d+)") if gauges else None
    written = []
    for source in sorted(RULES.glob("*.yaml")):
        document = yaml.safe_load(source.read_text())
        for group in document["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                expression = _WINDOW.sub(lambda found: shorter(found[0], factor), rule["expr"])
                if limit is not None:
                    expression = limit.sub(
                        lambda found: f"{found[1]}{float(found[2]) / factor:g}", expression
                    )
                if rule.get("record") in (values or {}):
                    expression = f"vector({(values or {})[rule['record']]})"
                rule["expr"] = expression
                for name in ("for", "keep_firing_for"):
                    if name in rule:
                        rule[name] = shorter(rule[name], factor)
        file = folder / f"short-{source.name}"
        file.write_text(yaml.safe_dump(document, width=1000))
        written.append(file)
    return written


@dataclass(frozen=True)
class Told:
    """An alert as a receiver is told of it."""

    receiver: str
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Webhook:
    """A server of the test that receives what Alertmanager sends. A context manager."""

    def __init__(self) -> None:
        self._told: list[Told] = []
        self._lock = threading.Lock()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook._take(self.path.strip("/"), json.loads(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer((ports.HOST, 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{ports.HOST}:{self._server.server_port}"

    def _take(self, receiver: str, message: Mapping[str, Any]) -> None:
        with self._lock:
            self._told += [
                Told(receiver, one["status"], one["labels"], one["annotations"])
                for one in message["alerts"]
            ]

    def told(self, name: str = "", status: str = "firing", **labels: str) -> list[Told]:
        """Return what it was told of an alert (of all) with these labels."""
        with self._lock:
            return [
                one
                for one in self._told
                if one.status == status
                and name in ("", one.labels["alertname"])
                and labels.items() <= one.labels.items()
            ]

    def names(self) -> set[str]:
        """Name the alerts that it was told of."""
        return {one.labels["alertname"] for one in self.told()}

    def wait(self, name: str, *, timeout: float = 60.0, **labels: str) -> Told:
        """Return when it is told of an alert."""
        return wait_until(
            lambda: self.told(name, **labels),
            timeout=timeout,
            every=0.1,
            what=f"{name} {labels} arrives, as {sorted(self.names())} did",
        )[0]


class Alertmanager(Watcher):
    """A private server with our configuration, whose receivers are a webhook; end it with `close`.

    It tells at once what ours would collect for a while. Skips the test where none can be had.
    """

    def __init__(self, folder: Path, webhook: Webhook, *, port: int = 0) -> None:
        port = port or ports.choose()
        super().__init__(
            "prometheus-alertmanager",
            folder / f"alertmanager-{port}",
            yaml.safe_dump(_configured(webhook)),
            ["--cluster.listen-address="],
            port=port,
        )

    def post(self, *alerts: Mapping[str, str]) -> None:
        """Tell it of alerts as Prometheus does, each by its labels."""
        httpx.post(
            f"{self.url}/api/v2/alerts",
            json=[{"labels": labels} for labels in alerts],
            timeout=20,
            trust_env=False,
        ).raise_for_status()

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that it knows, each with what suppresses it."""
        url = f"{self.url}/api/v2/alerts"
        found: list[dict[str, Any]] = httpx.get(url, timeout=20, trust_env=False).json()
        return found


def _configured(webhook: Webhook) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    configuration["templates"] = [str(CONFIGURATION.parent / "*.tmpl")]
    for route in (configuration["route"], *configuration["route"]["routes"]):
        route |= {"group_wait": "100ms", "group_interval": "500ms"}
    for receiver in configuration["receivers"]:
        receiver["webhook_configs"] = [{"url": f"{webhook.url}/{receiver['name']}"}]
    return configuration


__all__ = ["CONFIGURATION", "Alertmanager", "Told", "Webhook", "shortened", "shorter"]
