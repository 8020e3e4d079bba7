"""`email.send` against a real SMTP server with TLS and login."""

import socket
import ssl
from email import message_from_bytes
from email.policy import default

import pytest
from aiosmtpd import smtp as aiosmtp
from aiosmtpd.controller import Controller

from actors.email import send
from actors.error import (
    DEAD_ON,
    RETRY_ON,
    ActorArgumentError,
    ActorSettingsError,
    RefusedError,
    UnavailableError,
)


class Mailbox:
    """A handler that keeps what arrives, and answers as a test has told it to."""

    def __init__(self):
        self.envelopes = []
        self.answers = {}

    def mails(self):
        """Return the received mails, parsed."""
        return [message_from_bytes(each.content, policy=default) for each in self.envelopes]

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802
        """Take the recipient, or give the answer that is set for it."""
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802
        """Keep the mail, or give the answer that is set for mails."""
        answer = self.answers.get("DATA", "250 kept")
        if answer.startswith("250"):
            self.envelopes.append(envelope)
        return answer

    async def handle_QUIT(self, _server, _session, _envelope):  # noqa: N802
        """Say good-bye, or what is set."""
        return self.answers.get("QUIT", "221 Bye")


def authenticate(server, session, envelope, mechanism, data):
    """Know one user."""
    right = data.login == b"us@er" and data.password == b"p:w/d"
    return aiosmtp.AuthResult(success=right, handled=right)


class StartTLS(Controller):
    """A server that wants STARTTLS and a login."""

    def __init__(self, handler, tls):
        self._tls = tls
        super().__init__(handler, hostname="127.0.0.1", port=0)

    def factory(self):
        """Make one session."""
        return aiosmtp.SMTP(
            self.handler,
            tls_context=self._tls,
            require_starttls=True,
            auth_required=True,
            authenticator=authenticate,
            enable_SMTPUTF8=True,
        )

    def _trigger_server(self):
        """Find the real port before the controller's self-test connects to it."""
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class ImplicitTLS(StartTLS):
    """A server that speaks TLS from the first byte."""

    def __init__(self, handler, tls):
        super().__init__(handler, tls)
        self.ssl_context = tls

    def factory(self):
        """Make one session, inside TLS already."""
        return aiosmtp.SMTP(
            self.handler,
            auth_required=True,
            auth_require_tls=False,
            authenticator=authenticate,
        )

    def _trigger_server(self):
        """Replace the controller's self-test, which trusts no test certificate."""
        self.port = self.server.sockets[0].getsockname()[1]
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((self.hostname, self.port), timeout=5) as plain,
            trusting.wrap_socket(plain) as connection,
        ):
            connection.recv(100)


@pytest.fixture
def tls(authority):
    """Return the server's TLS context."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def mailbox(tls, ca_file, configure):
    """Run a server that wants STARTTLS and a login, and set it up for the actor."""
    box = Mailbox()
    controller = StartTLS(box, tls)
    controller.start()
    box.port = controller.port
    configure(
        SMTP_URL=f"smtp://us%40er:p%3Aw%2Fd@localhost:{controller.port}",
        SMTP_CA_FILE=ca_file,
        SMTP_FROM="leveret@example.com",
        SMTP_TIMEOUT_SECONDS=5,
    )
    yield box
    controller.stop()


def test_a_mail_from_a_template_arrives_with_its_attachment(mailbox, put, current_job):
    """STARTTLS, login, template, text and HTML, an attachment from the storage."""
    url = put("reports/may.csv", b"carrier,flights\nUA,4960\n")
    result = send.fn(
        to=["a@example.com", "b@example.com"],
        bcc=["hidden@example.com"],
        template="report-ready",
        context={"title": "May <2013>", "rows": 1},
        attachments=[url],
    )
    (envelope,), (mail,) = mailbox.envelopes, mailbox.mails()
    assert envelope.rcpt_tos == ["a@example.com", "b@example.com", "hidden@example.com"]
    assert envelope.mail_from == "leveret@example.com"
    assert mail["Subject"] == "Report ready: May <2013>"
    assert mail["To"] == "a@example.com, b@example.com"
    assert "hidden" not in str(mail)
    assert 'the report "May <2013>" is ready' in mail.get_body(("plain",)).get_content()
    assert "<strong>May &lt;2013&gt;</strong>" in mail.get_body(("html",)).get_content()
    (attachment,) = mail.iter_attachments()
    assert attachment.get_filename() == "may.csv"
    assert attachment.get_payload(decode=True) == b"carrier,flights\nUA,4960\n"
    assert result == {"message_id": "<job-1@example.com>", "recipients": 3}


def test_every_attempt_of_a_job_has_the_same_message_id(mailbox, current_job):
    """A receiver can drop the second copy of a mail whose job was delivered twice."""
    for _ in range(2):
        send.fn(to="a@example.com", subject="Hi", text="Hello")
    ids = [mail["Message-ID"] for mail in mailbox.mails()]
    assert ids == ["<job-1@example.com>"] * 2


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_implicit_tls_works_too(tls, ca_file, configure):
    """`smtps://` speaks TLS from the first byte."""
    box = Mailbox()
    controller = ImplicitTLS(box, tls)
    controller.start()
    try:
        configure(
            SMTP_URL=f"smtps://us%40er:p%3Aw%2Fd@localhost:{controller.port}", SMTP_CA_FILE=ca_file
        )
        send.fn(to="a@example.com", subject="Hi", html="<p>Hi</p>", sender="me@example.com")
    finally:
        controller.stop()
    (mail,) = box.mails()
    assert mail["From"] == "me@example.com"


def test_addresses_beyond_ascii_are_sent_where_the_server_takes_them(mailbox):
    """SMTPUTF8 is used when it is needed."""
    send.fn(to="jürgen@example.com", subject="Grüße", text="Hallo")
    assert mailbox.envelopes[0].rcpt_tos == ["jürgen@example.com"]


@pytest.mark.parametrize(
    ("stage", "answer", "error"),
    [
        ("b@example.com", "450 mailbox busy", UnavailableError),
        ("b@example.com", "550 no such user", RefusedError),
        ("DATA", "451 try later", UnavailableError),
        ("DATA", "554 looks like spam", RefusedError),
    ],
)
def test_4xx_is_retried_and_5xx_is_final_and_nobody_gets_the_mail(mailbox, stage, answer, error):
    """A mail goes to all recipients or to none, so a retry sends to nobody twice."""
    mailbox.answers[stage] = answer
    with pytest.raises(error, match=answer[:3]):
        send.fn(to=["a@example.com", "b@example.com"], subject="Hi", text="Hello")
    assert mailbox.envelopes == []
    assert error in (RETRY_ON if answer.startswith("4") else DEAD_ON)


def test_a_bad_good_bye_does_not_send_the_mail_again(mailbox):
    """Once the server has taken the mail, what QUIT says is no failure."""
    mailbox.answers["QUIT"] = "421 going down"
    send.fn(to="a@example.com", subject="Hi", text="Hello")
    assert len(mailbox.envelopes) == 1


def test_a_wrong_password_is_the_operators_and_is_not_shown(mailbox, configure, ca_file):
    """Jobs wait for the correction instead of dying, and the password stays out of logs."""
    configure(SMTP_URL=f"smtp://us%40er:hunter2@localhost:{mailbox.port}")
    with pytest.raises(ActorSettingsError, match="refuses the login") as caught:
        send.fn(to="a@example.com", subject="Hi", text="Hello")
    assert "hunter2" not in str(caught.value)


def test_an_untrusted_certificate_sends_nothing(mailbox, monkeypatch, configure):
    """Without the authority's certificate neither login nor mail leaves."""
    monkeypatch.delenv("LEVERET_SMTP_CA_FILE")
    configure()
    with pytest.raises(UnavailableError, match="certificate"):
        send.fn(to="a@example.com", subject="Hi", text="Hello")
    assert mailbox.envelopes == []


def test_a_server_without_starttls_gets_no_mail(configure):
    """The default does not fall back to clear text."""
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        configure(SMTP_URL=f"smtp://127.0.0.1:{controller.port}", SMTP_FROM="me@example.com")
        with pytest.raises(ActorSettingsError, match="STARTTLS"):
            send.fn(to="a@example.com", subject="Hi", text="Hello")
        configure(SMTP_URL=f"smtp://127.0.0.1:{controller.port}?tls=off")
        send.fn(to="a@example.com", subject="Hi", text="Hello")
    finally:
        controller.stop()
    assert len(box.envelopes) == 1


def test_a_server_that_is_down_is_retried(configure):
    """No connection is not the mail's fault."""
    configure(SMTP_URL=f"smtp://127.0.0.1:{free_port()}", SMTP_FROM="me@example.com")
    with pytest.raises(UnavailableError, match="cannot be used now"):
        send.fn(to="a@example.com", subject="Hi", text="Hello")


def test_attachments_together_have_a_limit(mailbox, put, configure):
    """The limit counts all of them, and nothing is sent beyond it."""
    configure(EMAIL_ATTACHMENT_BYTES=10)
    references = [put("a", b"123456"), put("b", b"12345")]
    with pytest.raises(ActorArgumentError, match="4 are allowed"):
        send.fn(to="a@example.com", subject="Hi", text="x", attachments=references)
    with pytest.raises(ActorArgumentError, match="outside the storage"):
        send.fn(to="a@example.com", subject="Hi", text="x", attachments=["file:///etc/passwd"])
    assert mailbox.envelopes == []


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"subject": "Hi"},
        {"text": "no subject"},
        {"subject": "Hi", "text": "x", "template": "report-ready"},
        {"subject": "Hi\r\nBcc: victim@example.com", "text": "x"},
    ],
)
def test_a_mail_that_cannot_be_made_is_dead(mailbox, arguments):
    """Half a mail, two mails in one, and injected headers are refused before any connection."""
    with pytest.raises(ActorArgumentError):
        send.fn(to="a@example.com", **arguments)
    assert mailbox.envelopes == []


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
