"""What became of every job: from the messages in ``leveret.ledger`` to rows, and to lists.

The recorder (`services.recorder`) writes here, the API and the command line read.
"""

from leveret.ledger.state import LIVE, State

__all__ = ["LIVE", "State"]
