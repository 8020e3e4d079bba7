"""A small TCP proxy that can cut or stall what runs through it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 65_536
_Pair = tuple[socket.socket, socket.socket]


class TcpProxy:
    """Forwards a loopback port to ``host:port``, until it is told to do worse.

    `cut` ends every connection; `refuse` also turns new ones away; `stall` keeps them open and
    passes nothing on; `resume` ends the last two. A context manager, which closes it.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = threading.Event()
        self._open.set()
        self._refusing = False
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        #: Connections that were taken so far.
        self.accepted = 0
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @classmethod
    def before(cls, url: str) -> TcpProxy:
        """Stand in front of the server of an URL."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port)

    def through(self, url: str, **query: object) -> str:
        """Return the URL that leads through the proxy."""
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        words = "&".join(f"{name}={value}" for name, value in query.items())
        return parts._replace(netloc=f"{login}@127.0.0.1:{self.port}", query=words).geturl()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._pairs)

    def cut(self) -> int:
        """End every connection without a word of AMQP; return how many there were."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def refuse(self) -> None:
        """End every connection, and new ones at once."""
        self._refusing = True
        self.cut()

    def stall(self) -> None:
        """Keep connections open and pass nothing on."""
        self._open.clear()

    def resume(self) -> None:
        """Pass everything on again."""
        self._refusing = False
        self._open.set()

    def close(self) -> None:
        """Stop listening and cut what is open."""
        self._refusing = True
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._open.set()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                if self._refusing:
                    raise ConnectionRefusedError
                far = socket.create_connection(self._target, timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            pair = (near, far)
            with self._lock:
                self._pairs.add(pair)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(
                    target=self._pump, args=(source, sink, pair), name="proxy", daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, pair: _Pair) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._open.wait()
                sink.sendall(data)
        for end in pair:  # this ends the other direction
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            if pair in self._pairs:
                self._pairs.discard(pair)  # the other direction is still there, and closes
                return
        for end in pair:
            end.close()
