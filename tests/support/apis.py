"""The HTTP API for tests: in a thread of this process, or as a process that can be killed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from compose.native import ports
from leveret.settings import Settings
from leveret.store import api_keys, engine
from services.api import create_app
from services.api.server import Server
from tests.support.processes import OurProcess
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

ACTORS = "tests.support.apijobs"
#: Where `tests.support.apikill` notes that it has killed.
FOLDER = "FAULTS_FOLDER"


class Api:
    """The API on a port of its own in this process, and what a test asks of it."""

    def __init__(self, database: str, **settings: Any) -> None:
        self.settings = Settings(
            database_url=database, **{"actors": (ACTORS,), "queues": Settings().queues, **settings}
        )
        self.app = create_app(self.settings)
        self.engine: Engine = engine(database, pool_size=2)
        self._server = Server(self.app, self.settings, port=0)
        self._thread = threading.Thread(target=self._server.run, name="api", daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, timeout=30, what="the API listens")
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://{ports.HOST}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(30)
        self.engine.dispose()

    def key(self, *scopes: str, **options: Any) -> str:
        """Make a key and return the whole of it."""
        with self.engine.begin() as connection:
            return api_keys.create(
                connection, name="test", scopes=scopes, created_by="test", **options
            )[1]

    def client(self, *scopes: str, token: str | None = None, **options: Any) -> httpx.Client:
        """Return a client with a key of these scopes, or without one."""
        token = token or (self.key(*scopes) if scopes else None)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)


class ApiProcess(OurProcess):
    """``python -m services.api`` of one test."""

    def __init__(
        self,
        database: str,
        folder: Path,
        *,
        actors: Sequence[str] = (ACTORS,),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        settings = {
            "LEVERET_DATABASE_URL": database,
            "LEVERET_ACTORS": ",".join(actors),
            "LEVERET_HTTP_HOST": ports.HOST,
            **(variables or {}),
        }
        super().__init__("API", ("-m", "services.api"), settings, folder=folder)
