"""Write the pages of docs/reference that follow from the code, and the pictures of the others.

``python -m docs.tools.generate`` writes them; with ``--check`` it names those that are stale, and
ends with status 1 if there is one. A test does the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import typer
import typer.main
import yaml  # type: ignore[import-untyped]
from prometheus_client.metrics import MetricWrapperBase

from docs.tools import library
from docs.tools.diagrams import PICTURES
from leveret import asyncapi, metrics, names, wheel
from leveret.broker import LeveretBroker, unwrapped
from leveret.cli.app import app
from leveret.declaration import load_actors
from leveret.housekeeping.actors import QUEUE, SHIPPED
from leveret.message import HEADERS, PREFIX
from leveret.schedules import Every
from leveret.schedules.trigger import Trigger
from leveret.settings import Settings
from leveret.topology import ROLES, Topology, build
from services.api import create_app
from services.api.problem import Kind
from services.worker.options import parse

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
RULES = ROOT / "compose" / "prometheus" / "rules"
EXPLANATION = ROOT / "docs" / "explanation" / "pictures"
NOTE = "<!-- Written by `make docs` from {source}. Do not edit. -->\n\n"
WIDTH = 96


def pages() -> dict[Path, str]:
    """Return every generated file as it should be."""
    broker = load_actors(["actors"], queues=names.DEFAULT_QUEUES, housekeeping=True)
    shipped = [d for d in asyncapi.describe(broker) if _is_shipped(broker, d.name)]
    actors = {described.name: described.queue for described in shipped}
    contract = asyncapi.document(shipped, names.DEFAULT_QUEUES)
    wire = REFERENCE / "wire-contract.md"
    return {
        REFERENCE / "alerts.md": alerts(),
        **{EXPLANATION / f"{draw.__name__}.svg": draw().svg() for draw in PICTURES},
        REFERENCE / "asyncapi.json": json.dumps(contract, indent=2) + "\n",
        REFERENCE / "cli.md": cli(),
        REFERENCE / "housekeeping.md": housekeeping(),
        REFERENCE / "http.md": http(),
        REFERENCE / "metrics.md": metric_page(),
        REFERENCE / "python.md": library.page(NOTE.format(source="the library's docstrings")),
        REFERENCE / "settings.md": settings(),
        REFERENCE / "topology.md": topology(build(names.DEFAULT_QUEUES, actors)),
        wire: between(wire.read_text(), "headers", headers()),
    }


def _is_shipped(broker: LeveretBroker, actor: str) -> bool:
    """Tell whether an actor comes with Leveret; the process may have declared others."""
    module = unwrapped(broker.actors[actor].fn).__module__
    return module.startswith(("actors.", "leveret.housekeeping."))


def main() -> int:
    """Write the pages, or with ``--check`` only compare them."""
    wanted = pages()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    check = "--check" in sys.argv[1:]
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(wanted[path])
    return 1 if check and stale else 0


def between(page: str, mark: str, text: str) -> str:
    """Replace what stands in a page between the comments of ``mark``."""
    begin, end = f"<!-- generated: {mark} -->\n", f"<!-- end: {mark} -->\n"
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}{text}{end}{tail}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")


def _code(value: object) -> str:
    return f"`{value}`" if str(value) else ""


# ------------------------------------------------------------------------------------ wire contract


def headers() -> str:
    """Tabulate the headers of a job."""
    return table(
        ("header", "type", "meaning", "without it"),
        [
            (
                _code(PREFIX + name),
                _kind(header.schema),
                header.description,
                _code(json.dumps(header.default)) if header.default is not None else "",
            )
            for name, header in HEADERS.items()
        ],
    )


def _kind(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"type": "integer", "minimum": low, "maximum": high}:
            return f"integer, {low} to {high}"
        case {"format": "date-time"}:
            return "RFC 3339 time with a zone, or an AMQP timestamp"
        case {"type": "string", "minLength": low, "maxLength": high}:
            return f"string, {low} to {high} bytes"
        case {"type": kind}:
            return str(kind)
    raise ValueError(f"no words for the header type {schema}")


# ----------------------------------------------------------------------------------------- settings


def settings() -> str:
    """Tabulate the settings of the library and its processes."""
    rows = [
        (
            _code(f"LEVERET_{setting.name.upper()}"),
            _code(_default(setting.default)),
            setting.metadata["description"] + (" (secret)" if setting.metadata["secret"] else ""),
        )
        for setting in fields(Settings)
    ]
    return (
        "# Settings\n\n"
        + NOTE.format(source="leveret/settings.py")
        + "Environment variables, read once when a process starts. A wrong value ends the process "
        "with status 2\nand a line that names the variable. `leveret settings` prints what is in "
        "force, secrets masked.\n\n"
        "A secret may be in a file instead, as Docker and Kubernetes hand secrets out: "
        "`LEVERET_AMQP_URL_FILE` names\nthe file with what `LEVERET_AMQP_URL` would be, and so "
        "for every setting below that is a secret. Setting both\nis an error.\n\n"
        + table(("variable", "default", "meaning"), rows)
        + "\nThe actors in the box have settings of their own: "
        "[actors.md](actors.md#settings).\nWhat runs by `LEVERET_HOUSEKEEPING`: "
        "[housekeeping.md](housekeeping.md).\n"
        "Traces follow OpenTelemetry's own variables: [trace-jobs.md](../how-to/trace-jobs.md).\n"
    )


def _default(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case timedelta():
            return f"{value.total_seconds():.10g}"
    return str(value)


# ---------------------------------------------------------------------------------------------- CLI


_EXIT_STATUS = """\
Exit status of `leveret`: 0 when all is well, 1 when the answer is no (drift was found, a job was
refused, the broker cannot be reached), 2 when the command line or a setting is wrong.
`leveret audit` has 3 as well: ask again.
"""


def cli() -> str:
    """Write down the help of every command."""
    commands = [
        *_commands(typer.main.get_command(app), "leveret"),
        ("python -m services.worker", _worker_help()),
    ]
    contents = [
        (f"[{name}](#{_anchor(name)})", text.split("\n\n")[1].strip().replace("\n ", ""))
        for name, text in commands
    ]
    parts = [
        "# Commands\n\n",
        NOTE.format(source="leveret/cli and services/worker/options.py"),
        _EXIT_STATUS,
        "\n" + table(("command", "what"), contents),
    ]
    parts += [f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in commands]
    return "".join(parts)


def _anchor(title: str) -> str:
    """Return the anchor of a heading, as forges make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _commands(command: Any, name: str) -> Iterator[tuple[str, str]]:
    command.rich_markup_mode = None
    context = typer.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    yield name, command.get_help(context).rstrip()
    for word, part in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(part, f"{name} {word}")


def _worker_help() -> str:
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        parse(["--help"], Settings())
    return said.getvalue().rstrip()


# --------------------------------------------------------------------------------------------- HTTP


def http() -> str:
    """Tabulate the endpoints, the documents that they take, and the errors."""
    document = create_app(
        Settings(database_url="postgresql://nobody@127.0.0.1/none", actors=("actors",))
    ).openapi()
    parts = [
        "# HTTP API\n\n",
        NOTE.format(source="services/api"),
        (
            "The whole of it, with every schema, is what a running API serves at `/openapi.json` "
            "(OpenAPI 3.1).\n[Use the HTTP API](../how-to/use-the-http-api.md) shows the usual "
            "calls. `read` is included in\n`operate`, and both in `admin`; `publish` stands for "
            "itself.\n"
        ),
    ]
    rows: dict[str, list[tuple[str, ...]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            scopes = operation.get("security", [{"key": ["none"]}])[0]["key"]
            about = operation.get("description", "").partition("\n\n")[0].replace("\n", " ")
            row = (_code(f"{method.upper()} {path}"), _code(scopes[0]), about)
            rows.setdefault(operation["tags"][0], []).append(row)
    for tag, found in rows.items():
        parts.append(f"\n## {tag.capitalize()}\n\n{table(('call', 'scope', 'what'), found)}")
    for name in ("NewJob", "NewReplay", "Which", "NewSchedule", "Options", "Backfill", "NewKey"):
        schema = document["components"]["schemas"][name]
        required = schema.get("required", ())
        fields_ = [
            (_code(field), "yes" if field in required else "", part.get("description", ""))
            for field, part in schema["properties"].items()
        ]
        parts.append(f"\n## {name}\n\n{schema['description']}\n\n")
        parts.append(table(("name", "needed", "meaning"), fields_))
    kinds = [(_code(f"urn:leveret:problem:{k.word}"), k.status, k.title) for k in Kind]
    parts.append(
        "\n## Errors\n\nProblem documents (RFC 9457), `application/problem+json`: `type`, `title`, "
        "`status`, `detail`, `request_id`, and\n`errors`, each with a `pointer` into the body, a "
        "`parameter` or a `header`, a stable `reason`, and `detail`; of a text such as a cron\n"
        "expression also the `position`, the column at which it goes wrong.\n\n"
        + table(("type", "status", "title"), kinds)
    )
    return "".join(parts)


# ------------------------------------------------------------------------------------- housekeeping


def housekeeping() -> str:
    """Tabulate what Leveret does for itself, and when."""
    rows = [
        (
            _code(shipped.name),
            _when(shipped.trigger),
            _span(shipped.jitter) if shipped.jitter else "",
            shipped.missed.value,
            shipped.description,
        )
        for shipped in SHIPPED
    ]
    return (
        "# Housekeeping\n\n"
        + NOTE.format(source="leveret/housekeeping/actors.py")
        + "What Leveret has to do again and again for itself are jobs like any other, on schedules "
        "that come with it.\nA scheduler fires them, and workers run them that have "
        "`LEVERET_DATABASE_URL` (the canary needs none); they\nbelong to the queue "
        f"`{QUEUE}`, or to the first of `LEVERET_QUEUES` if there is none of that name.\n\n"
        + table(("actor and schedule", "when (UTC)", "jitter", "missed", "what"), rows)
        + _HOUSEKEEPING
    )


_HOUSEKEEPING = """
A slot is skipped while the job of the one before has not ended. Look at them and stop them with
`leveret schedules list`, `pause` and `resume`; `leveret schedules run leveret.retain` does the
day's round now. `LEVERET_HOUSEKEEPING=false` in the schedulers takes all five off. Then, or when
no scheduler runs, a relay does the round of retention once nobody has begun one for 30 hours; and
recorders, the API and relays all make the partitions of the days to come.

**The canary.** `leveret.beat` does nothing. What counts is the time from when its slot was due to
its success in the ledger, by the database's clock: the whole way of a job, through scheduler,
outbox, relay, broker, worker and recorder. Each scheduler, leading or not, shows it as
`leveret_canary_seconds`, and as `leveret_canary_age_seconds` for how long none has come back. The
alerts on them, and on all else that can be wrong with a scheduler, are in
`compose/prometheus/rules/scheduler.yaml`; [the runbook](../runbooks/scheduler.md) says what to do.

**Roll-ups.** `leveret.rollup` counts jobs by when they ended, in buckets of five minutes, by actor,
queue and final state: how many, how many retries, and histograms of how long they ran and waited.
What the ledger hears of late is counted as soon as it does.
`leveret.housekeeping.rollup.read(connection, start, end, step)` reads them, with quantiles.
"""


def _when(trigger: Trigger) -> str:
    if isinstance(trigger, Every):
        return f"every {_span(trigger.interval)}"
    return _code(trigger.expression)


# ----------------------------------------------------------------------------------------- topology


def topology(wanted: Topology) -> str:
    """Tabulate exchanges, queues, bindings and roles."""

    def ours(name: str) -> bool:
        return not name.startswith(f"{names.DELAY}.")

    exchanges = [
        (_code(e.name), e.kind, _code(e.alternate or "")) for e in wanted.exchanges if ours(e.name)
    ]
    queues = [
        (_code(q.name), "<br>".join(_code(f"{k}={v}") for k, v in sorted(q.arguments.items())))
        for q in wanted.queues
        if ours(q.name)
    ]
    bindings = [
        (
            _code(b.source),
            _code(b.key),
            f"{'exchange' if b.to_exchange else 'queue'} {_code(b.destination)}",
        )
        for b in wanted.bindings
        if ours(b.source)
    ]
    digits = [
        (
            k,
            _code(names.wheel_exchange(k)),
            f"`{names.wheel_queue(k, 1)}` to `{names.wheel_queue(k, wheel.RADIX - 1)}`",
            " to ".join(_span(wheel.UNIT * wheel.RADIX**k * d) for d in (1, wheel.RADIX - 1)),
        )
        for k in reversed(range(wheel.DIGITS))
    ]
    roles = [
        (
            _code(role.user),
            _code(role.configure),
            _code(role.write),
            _code(role.read),
            ", ".join(role.tags),
        )
        for role in ROLES.values()
    ]
    keys = [
        (_code(role.user), _code(exchange), _code(pattern))
        for role in ROLES.values()
        for exchange, pattern in role.topics.items()
    ]
    policies = [
        (
            _code(p.name),
            _code(p.pattern),
            ", ".join(_code(f"{k}={v}") for k, v in p.definition.items()),
        )
        for p in wanted.policies
    ]
    return (
        "# Topology\n\n"
        + NOTE.format(source="leveret/topology")
        + "What `leveret topology apply` declares for the queues "
        + ", ".join(map(_code, names.DEFAULT_QUEUES))
        + f"\nand the actors in the box: {len(wanted.exchanges)} exchanges, {len(wanted.queues)} "
        f"queues, {len(wanted.bindings)} bindings. Everything is durable, and every\nqueue is a "
        "quorum queue. Why it is so: [the delay wheel](../explanation/delay-wheel.md),\n"
        "[settlement](../explanation/settlement.md).\n\n## Exchanges\n\n"
        + table(("exchange", "type", "alternate exchange"), exchanges)
        + "\n## Queues\n\n"
        + table(("queue", "arguments"), queues)
        + "\n## Bindings\n\n"
        + table(("from", "key", "to"), bindings)
        + "\n## The delay wheel\n\n"
        + table(("digit", "exchange", "queues", "message TTL"), digits)
        + f"\nEach exchange has the alternate exchange `{names.UNROUTABLE}`, and is bound straight "
        "to the queue of the\nnext digit that is not zero. Each queue has "
        "`x-dead-letter-strategy=at-least-once`,\n`x-overflow=reject-publish`, and dead-letters to "
        f"the exchange of the next lower digit, after the\nlast one to `{names.DUE}`.\n\n"
        "## Policies\n\n"
        + table(("policy", "pattern", "definition"), policies)
        + "\nA policy is made when it is missing, and never changed: its values are the "
        "operators'.\n\n## Users\n\nEach kind of process has a RabbitMQ user of its own. "
        "Permissions are regular expressions over names.\n\n"
        + table(("user", "configure", "write", "read", "tags"), roles)
        + "\nTo these exchanges a user may publish with these routing keys only:\n\n"
        + table(("user", "exchange", "routing keys"), keys)
    )


def _span(time: timedelta) -> str:
    seconds = time.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:g} s"


# ------------------------------------------------------------------------------------------ metrics


def metric_page() -> str:
    """Tabulate the metrics."""
    rows = []
    for name in sorted(metrics.__all__):
        collector: Any = getattr(metrics, name)
        if not isinstance(collector, MetricWrapperBase):
            raise TypeError(f"leveret.metrics.{name} is not a metric")
        (description,) = collector.describe()
        suffix = "_total" if description.type == "counter" else ""
        rows.append(
            (
                _code(description.name + suffix),
                description.type,
                ", ".join(map(_code, collector._labelnames)),  # noqa: SLF001
                description.unit,
                ", ".join(metrics.shown_by(collector)),
                description.documentation,
            )
        )
    return (
        "# Metrics\n\n"
        + NOTE.format(source="leveret/metrics.py")
        + _METRICS
        + table(("metric", "type", "labels", "unit", "process", "meaning"), sorted(rows))
        + _LABELS
    )


_METRICS = """Every process answers `GET /metrics` on its port of health checks, in the text
format of Prometheus, or, if asked for it, in that of OpenMetrics: then with exemplars.

A process shows every metric that it knows of; *process* is the one that has something to say. In
the others a count stays 0, and a gauge is 0, or NaN where 0 would be an answer: so add up, or take
the least or the greatest, over all of them. What a worker pool shows is that of all its processes,
added up: counts of a process that died stay, its gauges go.

"""
_LABELS = """
**Labels are bounded.** A publisher cannot make them up, nor can whoever asks for a path.
`actor` is `unknown` for what names no actor of the worker; `outcome` is one of `succeeded`,
`retrying`, `snoozed`, `dead`, `expired`, `cancelled`, `quarantined`.

**The broker's own.** What waits in a queue is RabbitMQ's to tell: its Prometheus plugin counts
`leveret.<queue>`, `leveret.dead.<queue>` and the rest.
"""


# ------------------------------------------------------------------------------------------- alerts


def alerts() -> str:
    """Tell of each alert how bad it is and when it fires, and of the rules that it builds on."""
    files = [(source.stem, _rules(source)) for source in sorted(RULES.glob("*.yaml"))]
    fired = [(stem, rule) for stem, rules in files for rule in rules if "alert" in rule]
    recorded = [rule for _, rules in files for rule in rules if "record" in rule]
    return (
        "# Alerts\n\n"
        + NOTE.format(source="compose/prometheus/rules")
        + "What Prometheus watches. Why it is so, and who is told: "
        "[alerting](../explanation/alerting.md). A name leads to\nits section of the runbooks: "
        "what it means, where to look, how to mend it. *After* is how long the condition\n"
        "must hold.\n\n"
        + table(
            ("alert", "severity", "after", "what it says"),
            [
                (
                    f"[{rule['alert']}](../runbooks/{stem}.md#{rule['alert'].lower()})",
                    rule["labels"]["severity"],
                    rule.get("for", "at once"),
                    _untemplated(rule["annotations"]["summary"]),
                )
                for stem, rule in fired
            ],
        )
        + "\n## Their conditions\n\n"
        + "".join(
            f"**{rule['alert']}**, {_with_labels(rule['labels'])}:\n\n"
            f"```promql\n{_lines(rule['expr'])}```\n\n"
            for _, rule in fired
        )
        + "## What is recorded for them\n\nDashboards and alerts read these series, which "
        "Prometheus computes.\n\n"
        + "".join(
            f"**{_code(rule['record'])}**{_with_labels(rule.get('labels', {}), ', ')}\n\n"
            f"```promql\n{_lines(rule['expr'])}```\n\n"
            for rule in recorded
        ).rstrip("\n")
        + "\n"
    )


def _rules(source: Path) -> list[dict[str, Any]]:
    document = yaml.safe_load(source.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def _untemplated(text: str) -> str:
    """Leave an ellipsis for what is only known when an alert fires."""
    return re.sub(r"…( ?…)*", "…", re.sub(r"\{\{.*?\}\}", "…", text))


def _with_labels(labels: Mapping[str, str], begin: str = "") -> str:
    return (begin if labels else "") + ", ".join(
        _code(f"{name}={value}") for name, value in labels.items()
    )


def _lines(expression: str) -> str:
    """Break an expression where it joins two."""
    return re.sub(r" (and|or|unless) ", r"\n\1 ", expression.strip()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
