"""Where a broker is, and how it is known to be the right one.

An address is an AMQP URL, or several with commas between them, the nodes of a cluster. ``amqps://``
means TLS: the server's certificate must be valid for the URL's host. It is checked with the
certificates that the system trusts (or ``SSL_CERT_FILE`` names), or with those of a file of the
URL's own, by the parameters of RabbitMQ's URI specification:

==============================  ====================================================================
``cacertfile``                  PEM file with the authorities that are trusted, and no others
``certfile``, ``keyfile``       PEM files with our own certificate and its key, if the broker asks
``server_name_indication``      the name in the server's certificate, when it is not the URL's host
``verify``                      only ``verify_peer``: a connection that is not checked is refused
==============================  ====================================================================

The management API's URL takes the same, but for the name.
"""

from __future__ import annotations

import ssl
from urllib.parse import parse_qsl, urlencode, urlsplit

import pika

from leveret.errors import ConfigurationError

__all__ = ["TLS_PARAMETERS", "parse_urls", "take_tls"]

#: The parameters of a URL that say how a server is checked.
TLS_PARAMETERS = ("cacertfile", "certfile", "keyfile", "server_name_indication", "verify")


def parse_urls(url: str, name: str) -> list[pika.URLParameters]:
    """Read one or more AMQP URLs; passwords never appear in the errors.

    ``name`` is what the connection is called in the broker.
    """
    result = []
    for part in url.split(","):
        try:
            pieces = urlsplit(part.strip())
        except ValueError:
            raise ConfigurationError("LEVERET_AMQP_URL cannot be read; check its host") from None
        if pieces.scheme not in ("amqp", "amqps") or not pieces.hostname:
            raise ConfigurationError(
                f"LEVERET_AMQP_URL must look like amqp://user:password@host:5672/vhost, "
                f"but its scheme and host are {pieces.scheme!r} and {pieces.hostname!r}"
            )
        plain, tls = take_tls(part.strip(), "LEVERET_AMQP_URL", secure="amqps")
        try:
            parameters = pika.URLParameters(plain)
        except (ValueError, TypeError):
            # What pika says may quote a password that was not percent-encoded.
            raise ConfigurationError(
                "LEVERET_AMQP_URL cannot be read; write it as amqp://user:password@host:5672/vhost "
                "with user, password and vhost percent-encoded, and check its parameters"
            ) from None
        if tls is not None:
            context, server_name = tls
            parameters.ssl_options = pika.SSLOptions(context, server_name)
        if "heartbeat" not in pieces.query:
            parameters.heartbeat = 10
        if "socket_timeout" not in pieces.query:
            parameters.socket_timeout = 5
        if "stack_timeout" not in pieces.query:
            parameters.stack_timeout = 10
        parameters.client_properties = {"connection_name": name, "product": "leveret"}
        result.append(parameters)
    return result


def take_tls(
    url: str, variable: str, *, secure: str
) -> tuple[str, tuple[ssl.SSLContext, str | None] | None]:
    """Take the TLS parameters off a URL; return the rest, and what they ask for, None without any.

    ``secure`` is the scheme that means TLS. Raises `ConfigurationError` naming the ``variable``
    when a parameter makes no sense, or a file cannot be used.
    """
    pieces = urlsplit(url)
    query = parse_qsl(pieces.query, keep_blank_values=True)
    asked = {name: value for name, value in query if name in TLS_PARAMETERS}
    if not asked:
        return url, None
    rest = pieces._replace(query=urlencode([pair for pair in query if pair[0] not in asked]))
    if pieces.scheme != secure:
        raise ConfigurationError(f"{variable} has {next(iter(asked))}, and is not {secure}://")
    if asked.get("verify", "verify_peer") != "verify_peer":
        raise ConfigurationError(
            f"{variable} asks not to verify the server's certificate, which is refused: name its "
            "authority in cacertfile"
        )
    try:
        context = ssl.create_default_context(cafile=asked.get("cacertfile"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{variable}: cacertfile {asked['cacertfile']!r} cannot be used: {_reason(error)}"
        ) from None
    if "certfile" in asked or "keyfile" in asked:
        try:
            context.load_cert_chain(asked.get("certfile", ""), asked.get("keyfile"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{variable}: certfile {asked.get('certfile')!r} and keyfile "
                f"{asked.get('keyfile')!r} cannot be used: {_reason(error)}"
            ) from None
    return rest.geturl(), (context, asked.get("server_name_indication"))


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "it holds no PEM of that kind")
    return getattr(error, "strerror", None) or str(error)
