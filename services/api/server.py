"""Serving the application with uvicorn."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from leveret.settings import Settings
from services.api.context import Context
from services.api.edge import MAX_HEADER_BYTES

__all__ = ["Server"]

#: What is under way when it is told to stop has so long to end.
_GRACE_SECONDS = 8
_BACKLOG = 512
#: Unlike httptools, h11 bounds what headers it reads.
_PROTOCOL = "h11"


class Server(uvicorn.Server):
    """A server that lets go of those who wait and follow before it waits for the others."""

    def __init__(self, app: FastAPI, settings: Settings, *, port: int | None = None) -> None:
        self._context: Context = app.state.context
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.http_host,
                port=settings.http_port if port is None else port,
                http=_PROTOCOL,
                h11_max_incomplete_event_size=2 * MAX_HEADER_BYTES,
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=bool(settings.http_trusted_proxies),
                forwarded_allow_ips=list(settings.http_trusted_proxies),
                backlog=_BACKLOG,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is under way, and stop."""
        await self._context.watcher.stop()
        await super().shutdown(sockets)
