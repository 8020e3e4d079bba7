"""What Leveret keeps in PostgreSQL: tables, migrations, partitions, connections.

Only the storing. What the rows mean is the business of those who write them: `leveret.ledger`,
`leveret.outbox`, `leveret.claims`, `leveret.deadletters`.
"""

from leveret.extra import brought_by

with brought_by("postgres", "leveret.store"):
    from leveret.store.engine import async_engine, engine
    from leveret.store.schema import metadata

__all__ = ["async_engine", "engine", "metadata"]
