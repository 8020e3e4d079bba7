"""A mail server that keeps what it is given: STARTTLS, a login, one file for each mail."""

from __future__ import annotations

import hmac
import logging
import secrets
import ssl
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd import smtp
from aiosmtpd.controller import Controller

from compose.native import ports

__all__ = ["Mailbox"]

_USER = "leveret"


class Mailbox:
    """An SMTP server on a thread of its own; mails appear as ``.eml`` files in ``folder``."""

    def __init__(self, folder: Path, private: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        authority = trustme.CA()
        #: The certificate that a client has to trust.
        self.ca_file = private / "mail-ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(ports.HOST).configure_cert(tls)
        self._password = secrets.token_urlsafe(16)
        #: Subjects by Message-ID: the same mail twice is one.
        self.subjects: dict[str, str] = {}
        #: Mails that arrived, repeated ones counted.
        self.arrivals = 0
        self._server = _Server(self, tls)

    def start(self) -> None:
        """Begin to take mails."""
        # It warns, at every login, of a property that it sets itself.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        self._server.start()

    def stop(self) -> None:
        """Take no more."""
        self._server.stop()

    @property
    def url(self) -> str:
        """What ``LEVERET_SMTP_URL`` has to be; it holds the password."""
        return f"smtp://{_USER}:{self._password}@{ports.HOST}:{self._server.port}"

    def may_enter(self, login: bytes, password: bytes) -> bool:
        """Tell whether this login is the right one."""
        right = hmac.compare_digest(password, self._password.encode())
        return right and login == _USER.encode()

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: smtp.SMTP, _session: smtp.Session, envelope: smtp.Envelope
    ) -> str:
        """Keep a mail."""
        content = envelope.original_content or b""
        mail = message_from_bytes(content, policy=default)
        name = str(mail["Message-ID"]).strip("<>").partition("@")[0]
        (self._folder / f"{name}.eml").write_bytes(content)
        self.subjects[name] = str(mail["Subject"])
        self.arrivals += 1
        return "250 kept"


class _Server(Controller):
    def __init__(self, mailbox: Mailbox, tls: ssl.SSLContext) -> None:
        self._mailbox = mailbox
        self._tls = tls
        super().__init__(mailbox, hostname=ports.HOST, port=ports.choose())

    def factory(self) -> smtp.SMTP:
        """Make one session."""
        return smtp.SMTP(
            self.handler,
            tls_context=self._tls,
            require_starttls=True,
            auth_required=True,
            authenticator=self._authenticate,
            hostname="localhost",
        )

    def _authenticate(
        self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> smtp.AuthResult:
        right = self._mailbox.may_enter(data.login, data.password)
        return smtp.AuthResult(success=right, handled=right)
