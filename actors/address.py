"""Connecting only to addresses that a stranger's URL may reach.

A name is resolved once, every address it has is judged, and the connection goes to one of exactly
these addresses, while TLS and the ``Host`` header keep the name. So a name server that answers
differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

import httpx

from actors.error import RefusedError

if TYPE_CHECKING:
    import ssl

__all__ = ["PinnedTransport", "is_public"]

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether ``address`` is out on the internet, also looking inside IPv6 wrappings."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


class PinnedTransport(httpx.BaseTransport):
    """An httpx transport that connects to the addresses it has judged, and to no other.

    ``httpx.ConnectError`` when a name has no address or none answers; `RefusedError` when any
    address of the name is not public and ``allow_private`` is false. Proxies are not used.
    """

    def __init__(
        self, *, verify: ssl.SSLContext | bool = True, allow_private: bool = False
    ) -> None:
        self._inner = httpx.HTTPTransport(verify=verify, trust_env=False)
        self._allow_private = allow_private

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` to the first judged address that takes the connection."""
        host = request.url.host
        failure: httpx.TransportError | None = None
        for address in self._addresses(host, request):
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return self._inner.handle_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError(f"{host!r} has no address", request=request)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _addresses(self, host: str, request: httpx.Request) -> list[IPv4Address | IPv6Address]:
        try:
            found = socket.getaddrinfo(host, request.url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(
                f"cannot resolve {host!r}: {error}", request=request
            ) from error
        texts = [str(entry[4][0]).partition("%")[0] for entry in found]
        addresses = [ip_address(text) for text in dict.fromkeys(texts)]
        if not self._allow_private:
            for address in addresses:
                if not is_public(address):
                    raise RefusedError(
                        f"{host!r} is at {address}, which is no public address: "
                        "LEVERET_WEBHOOK_ALLOW_PRIVATE=1 would allow it"
                    )
        return addresses
