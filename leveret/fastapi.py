"""Publishing from a service that is written with FastAPI.

::

    from leveret.fastapi import Jobs, lifespan

    app = FastAPI(lifespan=lifespan)

    @app.post("/orders")
    async def order(jobs: Jobs) -> None:
        await jobs.publish("email.send", {"to": "ada@example.com", "subject": "Thank you"})

One publisher for each process, opened with the application and closed with it, over one
connection. It needs ``LEVERET_AMQP_URL`` and the extra ``fastapi``; neither the actors nor a
database. For a job in the same transaction as business data there is `leveret.outbox`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from leveret.errors import ConfigurationError
from leveret.extra import brought_by
from leveret.publisher import Publisher
from leveret.settings import Settings

with brought_by("fastapi", "leveret.fastapi"):
    from fastapi import Depends, FastAPI
    from starlette.requests import HTTPConnection

__all__ = ["Jobs", "lifespan", "publisher_of"]


@asynccontextmanager
async def lifespan(
    app: FastAPI, *, settings: Settings | None = None, publisher: Publisher | None = None
) -> AsyncIterator[None]:
    """Have a publisher for as long as the application runs; pass it as ``FastAPI(lifespan=…)``.

    In a lifespan of your own: ``async with leveret.fastapi.lifespan(app): yield``. The settings are
    those of the environment unless given. A ``publisher`` that is given is used, and not closed.
    What is under way when the application ends is waited for, at most 10 s. Raises
    `ConfigurationError` when the broker's address is missing.
    """
    made: Publisher | None = None
    if publisher is None:
        settings = settings or Settings.from_env()
        publisher = made = Publisher(
            settings.require_amqp_url(),
            app_id=settings.app_id,
            timeout=settings.publish_timeout,
            max_body_bytes=settings.max_body_bytes,
        )
    app.state.leveret_publisher = publisher
    try:
        yield
    finally:
        app.state.leveret_publisher = None
        if made is not None:
            await asyncio.to_thread(made.close)


def publisher_of(connection: HTTPConnection) -> Publisher:
    """Return the publisher of the application that a request, or a WebSocket, is made to.

    Raises `ConfigurationError` outside of `lifespan`.
    """
    found = getattr(connection.app.state, "leveret_publisher", None)
    if not isinstance(found, Publisher):
        raise ConfigurationError(
            "the application has no publisher; make it with FastAPI(lifespan=leveret.fastapi."
            "lifespan), or enter that in its own lifespan"
        )
    return found


#: The type of an endpoint's parameter that is the application's publisher.
Jobs = Annotated[Publisher, Depends(publisher_of)]
