"""``leveret topology``: bring the broker to the topology table, or say where it is not."""

from __future__ import annotations

from typing import Annotated

import typer

from leveret import topology
from leveret.cli.common import AsJson, guarded, load_actors, print_json, vhost_of
from leveret.errors import ConfigurationError
from leveret.management import Management
from leveret.settings import Settings

app = typer.Typer(no_args_is_help=True, help="What stands in the broker.")


def _wanted(settings: Settings) -> topology.Topology:
    broker = load_actors(settings)
    actors = {name: actor.queue_name for name, actor in broker.actors.items()}
    try:
        return topology.build(settings.queues, actors)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _differences(settings: Settings, wanted: topology.Topology) -> list[topology.Difference]:
    if settings.management_url is None:
        raise ConfigurationError(
            "LEVERET_MANAGEMENT_URL is not set; give the management API's address, such as "
            "http://user:password@host:15672"
        )
    vhost = vhost_of(settings.require_amqp_url())
    with Management(settings.management_url) as management:
        return topology.compare(
            wanted,
            exchanges=management.get("exchanges", vhost),
            queues=management.get(
                "queues", vhost, disable_stats="true", enable_queue_totals="true"
            ),
            bindings=management.get("bindings", vhost),
            policies=management.policies(vhost),
        )


@app.command("apply")
@guarded
def apply(
    prune: Annotated[
        bool, typer.Option(help="Also remove bindings that the table does not have.")
    ] = False,
) -> None:
    """Declare exchanges, queues, the delay wheel and the routing of every actor. Idempotent."""
    settings = Settings.from_env()
    wanted = _wanted(settings)
    url = settings.require_amqp_url()
    topology.apply(url, wanted)
    if settings.management_url is not None:
        with Management(settings.management_url) as management:
            vhost = vhost_of(url)
            there = {policy["name"] for policy in management.policies(vhost)}
            for policy in wanted.policies:
                if policy.name not in there:
                    management.put_policy(
                        vhost,
                        policy.name,
                        pattern=policy.pattern,
                        definition=policy.definition,
                        apply_to=policy.apply_to,
                    )
    removed = 0
    if prune:
        removed = topology.prune(url, _differences(settings, wanted))
    print(
        f"{len(wanted.exchanges)} exchanges, {len(wanted.queues)} queues and "
        f"{len(wanted.bindings)} bindings stand" + (f"; {removed} removed" if prune else "")
    )


@app.command("check")
@guarded
def check(as_json: AsJson = False) -> None:
    """Report every difference between the broker and the table; exit status 1 if there is one."""
    settings = Settings.from_env()
    differences = _differences(settings, _wanted(settings))
    if as_json:
        print_json([{"kind": d.kind, "what": d.what, "detail": d.detail} for d in differences])
    else:
        for difference in differences:
            print(difference)
        if not differences:
            print("the broker is as the table wants it")
    if differences:
        raise typer.Exit(1)
