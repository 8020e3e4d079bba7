"""A private RabbitMQ node for the benchmarks alone, and the calls that prepare it."""

import base64
import json
import secrets
import urllib.parse
import urllib.request
from typing import Any, Self

from compose.native.errors import StackError
from compose.native.paths import Checkout
from compose.native.rabbitmq import Credentials, RabbitNode
from tests.benchmarks.error import BenchmarkError

_REQUEST_SECONDS = 30.0


class Node:
    """One RabbitMQ node, started on entering; stopped, and its data removed, on leaving."""

    def __init__(self) -> None:
        self._admin = Credentials("bench", secrets.token_urlsafe(18))
        self._rabbit = RabbitNode(Checkout.here().new_scratch("bench"), admin=self._admin)

    def __enter__(self) -> Self:
        try:
            self._rabbit.start()
        except BaseException as error:
            self._rabbit.destroy()
            if isinstance(error, StackError):
                raise BenchmarkError(str(error)) from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._rabbit.destroy()

    def amqp_url(self, vhost: str) -> str:
        """Return the AMQP URL of a virtual host, with the administrator's password in it."""
        return self._rabbit.amqp_url(vhost=vhost)

    @property
    def management_url(self) -> str:
        """The URL of the management API, with the administrator's password in it."""
        parts = urllib.parse.urlsplit(self._rabbit.management_url)
        return f"http://{self._admin.user}:{self._admin.password}@{parts.netloc}"

    def create_vhost(self, vhost: str) -> None:
        """Make a virtual host in which the administrator may do everything."""
        name = urllib.parse.quote(vhost, safe="")
        self._request("PUT", f"/api/vhosts/{name}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self._request("PUT", f"/api/permissions/{name}/{self._admin.user}", everything)

    def queues(self, vhost: str) -> list[str]:
        """Return the names of a virtual host's queues."""
        name = urllib.parse.quote(vhost, safe="")
        found = self._request("GET", f"/api/queues/{name}?columns=name")
        return [queue["name"] for queue in found]

    def version(self) -> str:
        """Return the broker's version."""
        return str(self._request("GET", "/api/overview")["rabbitmq_version"])

    def _request(self, method: str, path: str, body: object = None) -> Any:
        login = f"{self._admin.user}:{self._admin.password}"
        request = urllib.request.Request(
            f"{self._rabbit.management_url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as response:
            content = response.read()
        return json.loads(content) if content else None
