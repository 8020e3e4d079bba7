"""Publishing jobs: what other services use.

Needs nothing but pika. It publishes and waits for confirms; it does not run jobs, and it never
needs the database (for a job in the same transaction as business data, see the outbox).
"""

from leveret.publisher.publisher import Publisher
from leveret.publisher.receipt import Receipt

__all__ = ["Publisher", "Receipt"]
