"""``python -m services.api``."""

from __future__ import annotations

import logging
import signal
import sys

import structlog

from leveret import logs
from leveret.errors import ConfigurationError
from leveret.settings import Settings
from leveret.tracing import process
from services.api.app import create_app
from services.api.server import Server

log = structlog.get_logger("leveret.api")


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
    server = Server(app, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises again, at its end, what it was ended by: it has been heard by then.
        signal.signal(number, lambda *_: None)
    log.info("api.starting", host=settings.http_host, port=settings.http_port)
    try:
        with process.exporting("api"):
            server.run()
    except SystemExit:  # uvicorn's way to say that it could not begin
        return 2
    log.info("api.stopped")
    return 0


def _require_port(settings: Settings) -> None:
    if not settings.http_port:
        raise ConfigurationError("LEVERET_HTTP_PORT is not set; give the port to listen on")


if __name__ == "__main__":
    sys.exit(main())
