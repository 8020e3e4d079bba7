"""Counting failed authentications for each client address, in bounded memory."""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict

__all__ = ["FailureLimit", "block_of"]


class FailureLimit:
    """Tells which clients have failed too often within a window of time.

    A client may fail ``allowed`` times in ``window_seconds``. At most ``remembered`` clients are
    known; the one that failed the longest ago is forgotten first. A key that was right is
    remembered, too, so that a client behind the same address as an attacker is still served.
    Not thread-safe: for one event loop. Clocks are passed in, in seconds.
    """

    def __init__(
        self, *, allowed: int = 20, window_seconds: float = 60.0, remembered: int = 10_000
    ) -> None:
        self._allowed = allowed
        self._window = window_seconds
        self._remembered = remembered
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def wait_seconds(self, client: str, token: str | None, now: float) -> float:
        """Return how long the client must wait before it is listened to; 0 when it is now."""
        began, count = self._failures.get(client, (now, 0))
        if count < self._allowed or now - began >= self._window:
            return 0.0
        if token is not None and _digest(token) in self._good:
            return 0.0
        return began + self._window - now

    def failed(self, client: str, now: float) -> None:
        """Count a failure."""
        began, count = self._failures.pop(client, (now, 0))
        if now - began >= self._window:
            began, count = now, 0
        self._failures[client] = (began, count + 1)
        while len(self._failures) > self._remembered:
            self._failures.popitem(last=False)

    def succeeded(self, token: str) -> None:
        """Remember a key that was right."""
        digest = _digest(token)
        self._good[digest] = None
        self._good.move_to_end(digest)
        while len(self._good) > self._remembered:
            self._good.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def block_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 that an IPv6 host is given."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, 64), strict=False))
    return str(found)
