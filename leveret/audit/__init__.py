"""Whether every accepted job reached exactly one end: ledger, outbox, claims and broker compared.

*published = succeeded + dead + cancelled + expired + live*, where what the ledger calls live must
be what the broker and the outbox hold. `look` reads both sides, `judge` (pure) compares them and
names every job for which it does not hold, `repair` does what `judge` proposes.
"""

from leveret.audit.repair import repair
from leveret.audit.snapshot import look
from leveret.audit.verdict import Finding, Kind, Report, Snapshot, judge

__all__ = ["Finding", "Kind", "Report", "Snapshot", "judge", "look", "repair"]
