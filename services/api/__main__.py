"""``python -m services.api``."""

from __future__ import annotations

import logging
import sys

import structlog
import uvicorn

from leveret import logs
from leveret.errors import ConfigurationError
from leveret.settings import Settings
from services.api.app import create_app
from services.api.edge import MAX_HEADER_BYTES

log = structlog.get_logger("leveret.api")

#: What is under way when it is told to stop has so long to end.
_GRACE_SECONDS = 8
_BACKLOG = 512


def main() -> int:
    """Serve the API until SIGTERM; the exit status is 0 then, 2 when misconfigured."""
    try:
        settings = Settings.from_env()
        _require_port(settings)
        logs.configure(settings.log_level, settings.log_format)
        app = create_app(settings)
    except ConfigurationError as error:
        print(f"leveret api: {error}", file=sys.stderr)
        return 2
    # Its warnings are of interest, its greetings are not.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.http_host,
            port=settings.http_port,
            # Unlike httptools it bounds what headers it reads.
            http="h11",
            h11_max_incomplete_event_size=2 * MAX_HEADER_BYTES,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=True,
            proxy_headers=bool(settings.http_trusted_proxies),
            forwarded_allow_ips=list(settings.http_trusted_proxies),
            backlog=_BACKLOG,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    log.info("api.starting", host=settings.http_host, port=settings.http_port)
    try:
        server.run()
    except SystemExit:
        return 2 if not server.started else 1
    finally:
        log.info("api.stopped")
    return 0


def _require_port(settings: Settings) -> None:
    if not settings.http_port:
        raise ConfigurationError("LEVERET_HTTP_PORT is not set; give the port to listen on")


if __name__ == "__main__":
    sys.exit(main())
