"""``leveret topology``: bring the broker to the topology table, or say where it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from leveret import topology
from leveret.cli.common import AsJson, guarded, load_actors, print_json, vhost_of
from leveret.errors import ConfigurationError
from leveret.management import Management, grant, provision
from leveret.settings import Settings
from leveret.topology.roles import roles_for

app = typer.Typer(no_args_is_help=True, help="What stands in the broker.")


def _wanted(settings: Settings) -> topology.Topology:
    broker = load_actors(settings)
    actors = {name: actor.queue_name for name, actor in broker.actors.items()}
    try:
        return topology.build(settings.queues, actors)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _differences(settings: Settings, wanted: topology.Topology) -> list[topology.Difference]:
    vhost = vhost_of(settings.require_amqp_url())
    with Management(_management_url(settings)) as management:
        return topology.compare(
            wanted,
            exchanges=management.get("exchanges", vhost),
            queues=management.get(
                "queues", vhost, disable_stats="true", enable_queue_totals="true"
            ),
            bindings=management.get("bindings", vhost),
            policies=management.policies(vhost),
        )


def _wrong_permissions(settings: Settings) -> list[topology.Difference]:
    """Compare the users' permissions, if the management API's user may see them."""
    vhost = vhost_of(settings.require_amqp_url())
    roles = roles_for(settings.queues).values()
    with Management(_management_url(settings)) as management:
        if "administrator" not in management.tags():
            print(
                f"the users' permissions were not looked at: {management.user} is no administrator",
                file=sys.stderr,
            )
            return []
        return topology.compare_permissions(
            roles,
            permissions=management.permissions(vhost),
            topic_permissions={
                role.user: management.topic_permissions(vhost, role.user) for role in roles
            },
        )


def _provision(settings: Settings, folder: Path) -> tuple[str, ...]:
    """Make the users; return the roles that get their permissions once the topology stands."""
    roles = roles_for(settings.queues)
    passwords = {}
    for role in roles:
        file = folder / f"{role}.password"
        try:
            passwords[role] = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigurationError(f"{file} cannot be read: {reason}") from None
        if not passwords[role]:
            raise ConfigurationError(f"{file} is empty; it must hold a password")
    with Management(_administrator(settings)) as management:
        return provision(management, vhost_of(settings.require_amqp_url()), passwords, roles)


def _grant(settings: Settings, names: tuple[str, ...]) -> None:
    roles = {name: role for name, role in roles_for(settings.queues).items() if name in names}
    with Management(_administrator(settings)) as management:
        grant(management, vhost_of(settings.require_amqp_url()), roles)


def _management_url(settings: Settings) -> str:
    if settings.management_url is None:
        raise ConfigurationError(
            "LEVERET_MANAGEMENT_URL is not set; give the management API's address, such as "
            "http://user:password@host:15672"
        )
    return settings.management_url


def _administrator(settings: Settings) -> str:
    if settings.management_url is None:
        raise ConfigurationError(
            "LEVERET_MANAGEMENT_URL is not set; users are made through the management API, at an "
            "address such as http://administrator:password@host:15672"
        )
    return settings.management_url


@app.command("apply")
@guarded
def apply(
    prune: Annotated[
        bool, typer.Option(help="Also remove bindings that the table does not have.")
    ] = False,
    passwords: Annotated[
        Path | None,
        typer.Option(
            help="Also make the virtual host and the user of each role, with its permissions and "
            "the password in ROLE.password of this folder. LEVERET_MANAGEMENT_URL must be an "
            "administrator's."
        ),
    ] = None,
) -> None:
    """Declare exchanges, queues, the delay wheel and the routing of every actor. Idempotent."""
    settings = Settings.from_env()
    wanted = _wanted(settings)
    url = settings.require_amqp_url()
    withheld = () if passwords is None else _provision(settings, passwords)
    topology.apply(url, wanted)
    if withheld:
        _grant(settings, withheld)
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
    """Report every difference between the broker and the table; exit status 1 if there is one.

    An administrator's LEVERET_MANAGEMENT_URL has the users' permissions compared, too.
    """
    settings = Settings.from_env()
    differences = _differences(settings, _wanted(settings)) + _wrong_permissions(settings)
    if as_json:
        print_json([{"kind": d.kind, "what": d.what, "detail": d.detail} for d in differences])
    else:
        for difference in differences:
            print(difference)
        if not differences:
            print("the broker is as the table wants it")
    if differences:
        raise typer.Exit(1)
