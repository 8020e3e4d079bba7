"""Where the relay's next scan of the table begins. Pure.

Rows that were published and deleted stay in the table, and in its index, until a vacuum removes
them, and no vacuum can while some transaction, anywhere in the database, is older. A scan from the
beginning would walk over all of them each time: the table gets slower the more it has moved. So a
scan begins behind the last id that was seen.

But ids become visible out of order: a transaction that took its ids early may commit late, and a
row that another relay had locked may be left behind when that relay dies. So now and then a scan
*sweeps*: it begins at the beginning. When nothing is left behind the last id, it does so at once,
unless sweeping has become dear: then, at most a twentieth of the time is spent on it.
"""

from __future__ import annotations

__all__ = ["Cursor", "Pace"]


class Pace:
    """Says when something of unknown cost may be done again."""

    def __init__(self, *, share: float = 0.05, least: float = 0.0) -> None:
        self._share = share
        self._least = least
        self._next = 0.0

    def spent(self, seconds: float, *, now: float) -> None:
        """Take note that it was done, and how long it took."""
        self._next = now + max(seconds / self._share, self._least)

    def wait(self, now: float) -> float:
        """Return the seconds until it may be done."""
        return max(0.0, self._next - now)


class Cursor:
    """Where the next scan begins. For one thread."""

    def __init__(self, *, every: float = 1.0) -> None:
        self._every = every
        self._pace = Pace()
        self._position = 0
        self._highest = 0
        self._swept_at = float("-inf")
        #: Whether the scans up to now follow each other from the beginning of the table.
        self._sweeping = False
        #: Whether the latest scan found as much as it asked for.
        self._full = False
        #: Whether something may have been left behind.
        self._owed = True

    def begin(self, now: float, *, fresh: bool = False) -> int:
        """Return the id after which the next scan begins; 0 for a sweep.

        ``fresh`` says that there is something new, which comes before what was left behind.
        """
        if not fresh and self._pace.wait(now) <= 0:
            if self._owed and not self._sweeping:
                return 0
            if now - self._swept_at >= self._every:
                return 0
        return self._position

    def scanned(
        self, begin: int, last: int | None, *, full: bool, seconds: float, now: float
    ) -> None:
        """Take note of what a scan found: its last id, and whether there may be more behind it."""
        if begin == 0:
            self._swept_at = now
            self._sweeping = True
            self._pace.spent(seconds, now=now)
        if last is not None:
            self._highest = max(self._highest, last)
        self._full = full
        if full and last is not None:
            self._position = last
        else:
            self._owed = not self._sweeping
            self._sweeping = False
            self._position = self._highest

    def more(self, now: float) -> bool:
        """Tell whether to scan again at once."""
        return self._full or (self._owed and self._pace.wait(now) <= 0)

    def wait(self, now: float, longest: float) -> float:
        """Return how long to wait for something new before the next scan."""
        return min(longest, self._pace.wait(now)) if self._owed else longest
