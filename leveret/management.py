"""A small client of RabbitMQ's management API: what Leveret administers and measures with it.

::

    with Management("http://owner:secret@127.0.0.1:15672") as management:
        provision(management, vhost="leveret", passwords={"publisher": "…", "worker": "…"})

Needs `httpx`, which the extra ``cli`` brings. Not for the hot path: the broker answers from
statistics that are up to 5 s old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote, urlsplit

from leveret.amqp.address import take_tls
from leveret.errors import ConfigurationError, ManagementError
from leveret.extra import brought_by
from leveret.topology.roles import NOTHING, ROLES

with brought_by("cli", "leveret.management"):
    import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from leveret.topology.roles import Role

__all__ = ["Management", "ensure_users", "grant", "provision"]

_JSON = dict[str, Any]

#: What may be asked twice.
_REPEATABLE = ("GET", "HEAD", "PUT")


class Management:
    """The management API at ``url``, which carries the user and the password. Thread-safe.

    With ``https://`` the server's certificate is checked; `leveret.amqp.address` says how.

    Every method raises `ManagementError` when the API cannot be reached or refuses.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 10.0) -> None:
        url, tls = take_tls(url, "LEVERET_MANAGEMENT_URL", secure="https")
        if tls is not None and tls[1] is not None:
            raise ConfigurationError("LEVERET_MANAGEMENT_URL cannot have server_name_indication")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                "the management URL must look like http://user:password@host:15672"
            )
        self.user = unquote(parts.username or "guest")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        #: The address without credentials, fit for messages.
        self.address = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
        self._http = httpx.Client(
            base_url=f"{self.address}/api/",
            auth=(self.user, unquote(parts.password or "guest")),
            timeout=timeout_seconds,
            verify=True if tls is None else tls[0],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the API."""
        self._http.close()

    # Plain requests: `path` is below /api, its parts are escaped here.

    def get(self, *path: str, **query: str) -> Any:
        """Return what is at the path."""
        return self._ask("GET", path, query=query).json()

    def find(self, *path: str, **query: str) -> Any:
        """Return what is at the path, or None when nothing is."""
        response = self._ask("GET", path, query=query, missing_ok=True)
        return None if response.status_code == httpx.codes.NOT_FOUND else response.json()

    def put(self, *path: str, body: Mapping[str, object] | None = None) -> None:
        """Create or change what is at the path."""
        self._ask("PUT", path, body=body or {})

    def post(self, *path: str, body: Mapping[str, object]) -> Any:
        """Ask for an action; return its answer, None when that is empty."""
        response = self._ask("POST", path, body=body)
        return response.json() if response.content else None

    def delete(self, *path: str, **query: str) -> None:
        """Remove what is at the path; nothing there is fine."""
        self._ask("DELETE", path, query=query, missing_ok=True)

    # The broker.

    def overview(self) -> _JSON:
        """Return the broker's versions, totals and listeners."""
        found: _JSON = self.get("overview")
        return found

    def tags(self) -> frozenset[str]:
        """Return the tags of our own user, as ``administrator`` or ``monitoring``."""
        found = self.get("whoami")["tags"]
        return frozenset(found.split(",") if isinstance(found, str) else found)

    def create_vhost(self, vhost: str) -> None:
        """Create a virtual host, unless it exists."""
        if self.find("vhosts", vhost) is None:
            self.put("vhosts", vhost)

    def delete_vhost(self, vhost: str) -> None:
        """Delete a virtual host with everything in it."""
        self.delete("vhosts", vhost)

    # Users and what they may do.

    def put_user(self, name: str, *, password: str, tags: Sequence[str] = ()) -> None:
        """Create a user, or set its password and tags."""
        self.put("users", name, body={"password": password, "tags": ",".join(tags)})

    def delete_user(self, name: str) -> None:
        """Delete a user; its connections are closed by the broker."""
        self.delete("users", name)

    def put_permissions(
        self, vhost: str, user: str, *, configure: str, write: str, read: str
    ) -> None:
        """Set which names a user may declare, publish to and consume from."""
        body = {"configure": configure, "write": write, "read": read}
        self.put("permissions", vhost, user, body=body)

    def permissions(self, vhost: str) -> list[_JSON]:
        """Return what each user may do in a virtual host; for administrators."""
        found: list[_JSON] = self.get("vhosts", vhost, "permissions")
        return found

    def topic_permissions(self, vhost: str, user: str) -> dict[str, tuple[str, str]]:
        """Return the routing keys that a user may write and read, by topic exchange."""
        found = self.find("topic-permissions", vhost, user) or []
        return {entry["exchange"]: (entry["write"], entry["read"]) for entry in found}

    def put_topic_permission(
        self, vhost: str, user: str, exchange: str, *, write: str, read: str = ".*"
    ) -> None:
        """Set the routing keys that a user may write to, and bind from, a topic exchange."""
        body = {"exchange": exchange, "write": write, "read": read}
        self.put("topic-permissions", vhost, user, body=body)

    def delete_topic_permissions(self, vhost: str, user: str) -> None:
        """Lift all restrictions on a user's routing keys."""
        self.delete("topic-permissions", vhost, user)

    # Queues.

    def queues(self, vhost: str) -> list[_JSON]:
        """Return the queues of a virtual host with their statistics."""
        found: list[_JSON] = self.get("queues", vhost)
        return found

    def queue(self, vhost: str, name: str) -> _JSON | None:
        """Return one queue with its statistics, None when there is none of that name."""
        found: _JSON | None = self.find("queues", vhost, name)
        return found

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with its messages."""
        self.delete("queues", vhost, name)

    def purge_queue(self, vhost: str, name: str) -> None:
        """Drop the messages of a queue that are not being worked on."""
        self.delete("queues", vhost, name, "contents")

    # Connections.

    def connections(self, vhost: str | None = None) -> list[_JSON]:
        """Return the open connections, of one virtual host or of all."""
        path = ("connections",) if vhost is None else ("vhosts", vhost, "connections")
        found: list[_JSON] = self.get(*path)
        return found

    def close_connection(self, name: str, reason: str = "closed by an administrator") -> None:
        """Close a connection; its client is told the reason."""
        self._ask("DELETE", ("connections", name), headers={"X-Reason": reason}, missing_ok=True)

    # Policies.

    def policies(self, vhost: str) -> list[_JSON]:
        """Return the policies of a virtual host."""
        found: list[_JSON] = self.get("policies", vhost)
        return found

    def put_policy(
        self,
        vhost: str,
        name: str,
        *,
        pattern: str,
        definition: Mapping[str, object],
        apply_to: str = "queues",
        priority: int = 0,
    ) -> None:
        """Create or change a policy."""
        body = {
            "pattern": pattern,
            "definition": dict(definition),
            "apply-to": apply_to,
            "priority": priority,
        }
        self.put("policies", vhost, name, body=body)

    def delete_policy(self, vhost: str, name: str) -> None:
        """Remove a policy."""
        self.delete("policies", vhost, name)

    def _ask(
        self,
        method: str,
        path: Sequence[str],
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        missing_ok: bool = False,
    ) -> httpx.Response:
        where = "/".join(quote(part, safe="") for part in path)
        try:
            try:
                response = self._http.request(
                    method, where, params=query, json=body, headers=headers
                )
            except httpx.RemoteProtocolError:
                # The server closed a connection that had been idle just as it was to be used.
                if method not in _REPEATABLE:
                    raise
                response = self._http.request(
                    method, where, params=query, json=body, headers=headers
                )
        except httpx.HTTPError as error:
            raise ManagementError(
                f"the management API at {self.address} did not answer {method} {where}: "
                f"{error!r}. Is the plugin rabbitmq_management on?"
            ) from error
        if response.is_success or (missing_ok and response.status_code == httpx.codes.NOT_FOUND):
            return response
        raise ManagementError(self._refusal(method, where, response))

    def _refusal(self, method: str, where: str, response: httpx.Response) -> str:
        said = f"{method} {where} at {self.address} was refused with {response.status_code}"
        match response.status_code:
            case httpx.codes.UNAUTHORIZED:
                remedy = f"user {self.user!r} has another password, or lacks a management tag"
            case httpx.codes.FORBIDDEN:
                remedy = f"user {self.user!r} may not do that: use the administrator's URL"
            case _:
                remedy = response.text[:500] or "without a reason"
        return f"{said}: {remedy}"


def ensure_users(
    management: Management, passwords: Mapping[str, str], roles: Mapping[str, Role] = ROLES
) -> None:
    """Create the user of each role with its password and tags, or bring it to them."""
    for role in roles.values():
        management.put_user(role.user, password=passwords[role.name], tags=role.tags)


def grant(management: Management, vhost: str, roles: Mapping[str, Role] = ROLES) -> tuple[str, ...]:
    """Give each role's user its permissions in ``vhost``, and take away any others.

    Restrictions go first: a topic exchange without them takes every routing key. RabbitMQ 4.3
    restricts only exchanges that exist (and forgets the restrictions of one that is deleted), so
    there a role has no permission at all before the topology stands. The names of such roles are
    returned: grant again after ``leveret topology apply``, for which ``admin`` needs no other role.
    """
    withheld = []
    for role in roles.values():
        if set(management.topic_permissions(vhost, role.user)) - set(role.topics):
            management.delete_topic_permissions(vhost, role.user)
        try:
            for exchange, write in role.topics.items():
                management.put_topic_permission(vhost, role.user, exchange, write=write)
        except ManagementError as error:
            if "no_such_exchange" not in str(error):
                raise
            management.put_permissions(
                vhost, role.user, configure=NOTHING, write=NOTHING, read=NOTHING
            )
            withheld.append(role.name)
            continue
        management.put_permissions(
            vhost, role.user, configure=role.configure, write=role.write, read=role.read
        )
    return tuple(withheld)


def provision(
    management: Management,
    vhost: str,
    passwords: Mapping[str, str],
    roles: Mapping[str, Role] = ROLES,
) -> tuple[str, ...]:
    """Create the virtual host and every role's user with exactly its permissions; idempotent.

    ``passwords`` maps each role's name to its password. Needs an administrator. Returns the roles
    that `grant` had to leave without permissions.
    """
    management.create_vhost(vhost)
    ensure_users(management, passwords, roles)
    return grant(management, vhost, roles)
