"""Publishing in the transaction of business data.

``outbox.enqueue(connection, "email.send", {...})`` writes a job into the table ``leveret_outbox``
of the caller's own database, within the caller's own transaction: the job exists when that commits,
and never did when it is rolled back. A relay (``python -m services.relay``) reads the table and
publishes what it finds; the caller needs no broker. ``leveret outbox ddl`` prints the table.

Needs nothing but pika and the connection that it is given: a `Session` or `Connection` of
SQLAlchemy, or a `Connection` or `Cursor` of psycopg. It does not publish: that is the relay's part.
"""

from leveret.outbox.writer import enqueue, enqueue_async, enqueue_many, enqueue_many_async

__all__ = ["enqueue", "enqueue_async", "enqueue_many", "enqueue_many_async"]
