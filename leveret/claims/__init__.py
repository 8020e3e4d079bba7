"""What PostgreSQL is asked before a job that is ``once``, or unique, may run.

The protocol of claims is told in `leveret.claims.claim`, what unique jobs mean in
`leveret.claims.decision`. How a run ends is the worker's business.
"""

from leveret.claims.unique import register_unique

__all__ = ["register_unique"]
