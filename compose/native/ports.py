"""Ports on the loopback interface: free when first chosen, then remembered."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import time
from typing import TYPE_CHECKING

from compose.native.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HOST = "127.0.0.1"
#: Below the range from which Linux takes the ports of outgoing connections (32768 and up), so
#: that none of those can take a port between its choice and its use.
FIRST, LAST = 18_000, 32_000
_ATTEMPTS = 200
#: How long the kernel and its children may keep the port of a server that was killed.
_RELEASE_SECONDS = 5.0


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def is_open(port: int) -> bool:
    """Tell whether a server accepts connections on `port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def status(port: int, path: str) -> int:
    """Return the status with which the server at `port` answers a page; 0 when none does."""
    client = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        client.request("GET", path)
        return client.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        client.close()


def choose(taken: Iterable[int] = ()) -> int:
    """Return a free port that is not among `taken`."""
    avoid = set(taken)
    for _ in range(_ATTEMPTS):
        port = FIRST + secrets.randbelow(LAST - FIRST)
        if port not in avoid and is_free(port):
            return port
    raise StackError(f"no free port between {FIRST} and {LAST} on {HOST}: stop what holds them")


def remembered(file: Path, names: Iterable[str]) -> dict[str, int]:
    """Return a port for each name: the one kept in `file`, or a new one, which is kept there.

    A kept port that somebody else uses by now is replaced; so ask only while the server is down.
    One that has just been killed may hold its port for a moment more, and gets it again.
    """
    known = load(file)
    ports: dict[str, int] = {}
    for name in names:
        port = known.get(name)
        if port is None or not _becomes_free(port):
            port = choose([*ports.values(), *known.values()])
        ports[name] = port
    file.write_text(json.dumps({**known, **ports}, indent=1) + "\n", encoding="utf-8")
    return ports


def _becomes_free(port: int) -> bool:
    """Tell whether a port is free, or is so within a few seconds."""
    end = time.monotonic() + _RELEASE_SECONDS
    while not is_free(port):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def load(file: Path) -> dict[str, int]:
    """Return the ports kept in `file`, none when it is missing."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): int(port) for name, port in kept.items()}
