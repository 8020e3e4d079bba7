"""The commands."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from importlib import metadata
from typing import Annotated, Any

import typer

from leveret import asyncapi as contract
from leveret.cli import (
    audit,
    cancel,
    claims,
    dead,
    keys,
    migrate,
    outbox,
    queues,
    retention,
    schedules,
    topology,
)
from leveret.cli import jobs as jobs_commands
from leveret.cli.common import AsJson, guarded, load_actors, print_json, print_table
from leveret.errors import InvalidJob
from leveret.message import Reason
from leveret.publisher import Publisher
from leveret.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Background jobs on RabbitMQ that lose nothing, remembered in PostgreSQL.",
)
app.add_typer(keys.app, name="keys")
app.add_typer(topology.app, name="topology")
app.add_typer(outbox.app, name="outbox")
app.add_typer(dead.app, name="dead")
app.add_typer(schedules.app, name="schedules")
jobs = typer.Typer(no_args_is_help=True, help="What became of jobs, and what is to become of them.")
jobs_commands.register(jobs)
cancel.register(jobs)
app.add_typer(jobs, name="jobs")
app.add_typer(claims.app, name="claims")
app.command()(migrate.migrate)
app.command()(retention.retention)
app.command()(jobs_commands.workers)
app.command()(audit.audit)
app.command()(queues.queues)


def _version(wanted: bool) -> None:  # noqa: FBT001 - a callback of typer's
    if wanted:
        print(f"leveret {metadata.version('leveret')}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Background jobs on RabbitMQ that lose nothing, remembered in PostgreSQL."""


@app.command()
@guarded
def publish(
    actor: Annotated[str, typer.Argument(help="The actor, such as email.send.")],
    arguments: Annotated[
        str, typer.Argument(help="Its arguments, as a JSON object; - reads standard input.")
    ] = "{}",
    queue: Annotated[str | None, typer.Option(help="The pool that runs it.")] = None,
    delay: Annotated[float | None, typer.Option(help="Not before so many seconds.")] = None,
    at: Annotated[datetime | None, typer.Option(help="Not before this local time.")] = None,
    expires: Annotated[
        float | None, typer.Option(help="Not to be started after so many seconds.")
    ] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=255)] = None,
    job_id: Annotated[str | None, typer.Option(help="The job's id.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option("--key", help="Jobs with the same key have their effects once.")
    ] = None,
    once: Annotated[bool, typer.Option(help="The job has its effects once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a job, wait until the broker has it, and print its id."""
    settings = Settings.from_env()
    text = sys.stdin.read() if arguments == "-" else arguments
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidJob(Reason.NOT_JSON, f"the arguments are not JSON: {error}") from None
    with Publisher(
        settings.require_amqp_url(),
        app_id=settings.app_id or "leveret-cli",
        timeout=settings.publish_timeout,
        max_body_bytes=settings.max_body_bytes,
    ) as publisher:
        found = publisher.send(
            actor,
            document,
            queue=queue,
            delay=delay,
            at=None if at is None else at.astimezone(),
            expires=expires,
            priority=priority,
            job_id=job_id,
            idempotency_key=idempotency_key,
            once=once,
        )
    if as_json:
        print_json({"job_id": found})
    else:
        print(found)


@app.command()
@guarded
def actors(as_json: AsJson = False) -> None:
    """List the declared actors, their queues and their arguments."""
    broker = load_actors(Settings.from_env())
    rows = []
    for name, actor in sorted(broker.actors.items()):
        schema = broker.signature(name).json_schema()
        policy = broker.policy(name)
        rows.append((name, actor.queue_name, schema, policy))
    if as_json:
        print_json(
            [
                {"actor": name, "queue": queue, "arguments": schema, "max_retries": p.max_retries}
                for name, queue, schema, p in rows
            ]
        )
        return
    print_table(
        ("actor", "queue", "time limit", "retries", "arguments"),
        [
            (name, queue, policy.time_limit or "-", policy.max_retries, _arguments(schema))
            for name, queue, schema, policy in rows
        ],
    )


def _arguments(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    return ", ".join(
        name if name in required else f"[{name}]" for name in schema.get("properties", {})
    )


@app.command()
@guarded
def asyncapi(
    title: Annotated[str, typer.Option(help="The document's title.")] = "Leveret jobs",
) -> None:
    """Print the wire contract of the declared actors as AsyncAPI 3, with their JSON Schemas."""
    settings = Settings.from_env()
    described = contract.describe(load_actors(settings))
    print_json(contract.document(described, settings.queues, title=title))


@app.command()
@guarded
def settings(as_json: AsJson = False) -> None:
    """Print every setting as it is read from the environment, secrets masked."""
    shown = Settings.from_env().masked()
    if as_json:
        print_json(shown)
    else:
        print_table(("setting", "value"), list(shown.items()))
