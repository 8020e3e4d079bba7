"""The HTTP API: jobs are published, looked at and operated on over HTTP.

``python -m services.api`` serves it on ``LEVERET_HTTP_HOST`` and ``LEVERET_HTTP_PORT``. It
publishes through the outbox alone, so that a job is accepted whether or not RabbitMQ is there.
"""

from services.api.app import create_app

__all__ = ["create_app"]
