"""Handing one mail to an SMTP server, all of its recipients or none.

`smtplib`'s own ``send_message`` delivers to those recipients that the server takes and reports the
others, which a retry cannot repair without sending twice. Here a refused recipient ends the
dialogue before the mail is sent, so a mail has been sent to everybody or to nobody.
"""

from __future__ import annotations

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.generator import BytesGenerator
from email.policy import SMTP, SMTPUTF8
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from actors.error import ActorSettingsError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import EmailMessage
    from pathlib import Path

__all__ = ["Server", "deliver", "parse"]


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where mail is handed over, as ``LEVERET_SMTP_URL`` says it."""

    host: str
    port: int
    user: str | None
    tls: str  # "start", "implicit" or "off"


def parse(url: str) -> Server:
    """Return the server of ``LEVERET_SMTP_URL``; raise `ActorSettingsError` if it cannot be."""
    problem = "LEVERET_SMTP_URL must look like smtps://user:password@host:465"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ActorSettingsError(problem) from None
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise ActorSettingsError(problem)
    tls = parse_qs(parts.query).get("tls", ["start"])[0]
    if parts.scheme == "smtps":
        tls = "implicit"
    if tls not in {"start", "implicit", "off"}:
        raise ActorSettingsError("LEVERET_SMTP_URL: ?tls= is start or off")
    if tls == "off" and parts.username:
        raise ActorSettingsError(
            "LEVERET_SMTP_URL: a password is not sent in clear text; drop ?tls=off or the login"
        )
    return Server(
        host=parts.hostname,
        port=port or {"implicit": 465, "start": 587, "off": 25}[tls],
        user=unquote(parts.username) if parts.username else None,
        tls=tls,
    )


def deliver(
    mail: EmailMessage,
    *,
    url: str,
    sender: str,
    recipients: Sequence[str],
    ca_file: Path | None = None,
    timeout_seconds: float = 15.0,
) -> None:
    """Send ``mail`` to all ``recipients``.

    Raises `RefusedError` for an SMTP code of 500 or more, `UnavailableError` for 4xx and for a
    connection that cannot be made or breaks, and `ActorSettingsError` when the login is refused.
    """
    server = parse(url)
    where = f"{server.host}:{server.port}"
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ActorSettingsError(f"LEVERET_SMTP_CA_FILE: cannot read {ca_file}: {error}") from error
    try:
        client = _connect(server, context, timeout_seconds)
        try:
            _login(client, server, unquote(urlsplit(url).password or ""))
            _transfer(client, mail, sender, recipients, where)
            with suppress(smtplib.SMTPException, OSError):  # the mail is theirs by now
                client.quit()
        finally:
            client.close()
    except smtplib.SMTPResponseException as error:
        raise _judged(where, "it refused", error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPNotSupportedError as error:
        raise ActorSettingsError(
            f"the SMTP server {where} cannot do what is set: {error}"
        ) from error
    except (smtplib.SMTPException, OSError) as error:
        raise UnavailableError(f"the SMTP server {where} cannot be used now: {error}") from error


def _connect(server: Server, context: ssl.SSLContext, timeout: float) -> smtplib.SMTP:
    if server.tls == "implicit":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=timeout, context=context)
    client = smtplib.SMTP(server.host, server.port, timeout=timeout)
    try:
        if server.tls == "start":
            client.starttls(context=context)
    except BaseException:
        client.close()
        raise
    return client


def _login(client: smtplib.SMTP, server: Server, password: str) -> None:
    client.ehlo_or_helo_if_needed()
    if server.user is None:
        return
    try:
        client.login(server.user, password)
    except smtplib.SMTPAuthenticationError as error:
        if error.smtp_code < 500:
            raise
        raise ActorSettingsError(
            f"the SMTP server {server.host}:{server.port} refuses the login of {server.user!r} "
            f"({error.smtp_code}): correct LEVERET_SMTP_URL"
        ) from None


def _transfer(
    client: smtplib.SMTP,
    mail: EmailMessage,
    sender: str,
    recipients: Sequence[str],
    where: str,
) -> None:
    international = not all(address.isascii() for address in (sender, *recipients))
    options: tuple[str, ...] = ()
    if international:
        if not client.has_extn("smtputf8"):
            raise RefusedError(f"the SMTP server {where} takes no addresses beyond ASCII")
        options = ("SMTPUTF8", "BODY=8BITMIME")
    buffer = BytesIO()
    BytesGenerator(buffer, policy=SMTPUTF8 if international else SMTP).flatten(mail)

    code, answer = client.mail(sender, options)
    if code != 250:
        raise _judged(where, f"it refused the sender {sender!r}", code, answer)
    for recipient in recipients:
        code, answer = client.rcpt(recipient)
        if code not in {250, 251}:
            raise _judged(where, f"it refused the recipient {recipient!r}", code, answer)
    code, answer = client.data(buffer.getvalue())
    if code != 250:
        raise _judged(where, "it refused the mail", code, answer)


def _judged(where: str, what: str, code: int, answer: bytes | str) -> Exception:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    message = f"the SMTP server {where} said {code} {text[:300]!r}: {what}"
    return RefusedError(message) if code >= 500 else UnavailableError(message)
