"""Composing mails and rendering templates."""

from email import message_from_bytes
from email.policy import default

import pytest

from actors.error import ActorArgumentError, ActorSettingsError
from actors.letter import Attachment, Content, compose, message_id, render
from actors.smtp import parse

SENDER = "shop@example.com"
TEXT = Content(subject="Hi", text="Hello")


def parsed(mail):
    """Return the mail as a receiver reads it."""
    return message_from_bytes(bytes(mail), policy=default)


def test_text_html_and_attachments_arrive_as_they_were_given():
    """The parts survive encoding, non-ASCII included."""
    mail = parsed(
        compose(
            Content(subject="Größe ✓", text="Grüße", html="<p>Grüße</p>"),
            job_id="j1",
            sender=SENDER,
            to=["a@example.com", "b@example.com"],
            cc=["c@example.com"],
            reply_to="help@example.com",
            attachments=[Attachment(name="reports/möbel.csv", content=b"a,b\n1,2\n")],
        )
    )
    assert mail["Subject"] == "Größe ✓"
    assert mail["To"] == "a@example.com, b@example.com"
    assert mail["Cc"] == "c@example.com"
    assert mail["Reply-To"] == "help@example.com"
    assert mail.get_body(("plain",)).get_content().strip() == "Grüße"
    assert mail.get_body(("html",)).get_content().strip() == "<p>Grüße</p>"
    (attachment,) = mail.iter_attachments()
    assert attachment.get_filename() == "möbel.csv"
    assert attachment.get_content_type() == "text/csv"
    assert attachment.get_payload(decode=True) == b"a,b\n1,2\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", "Hi\r\nBcc: victim@example.com"),
        ("subject", "Hi\nX: y"),
        ("subject", "Hi\x00"),
        ("sender", "a@example.com\nBcc: v@example.com"),
        ("to", ["a@example.com\r\nBcc: v@example.com"]),
        ("cc", ["a@example.com\r\nBcc: v@example.com"]),
        ("reply_to", "a@example.com\r\nBcc: v@example.com"),
    ],
)
def test_header_injection_is_refused(field, value):
    """A line break in any header is an error, not a header."""
    arguments = {"job_id": "j", "sender": SENDER, "to": ["a@example.com"]}
    content = TEXT
    if field == "subject":
        content = Content(subject=value, text="x")
    else:
        arguments[field] = value
    with pytest.raises(ActorArgumentError, match="line break"):
        compose(content, **arguments)


def test_the_message_id_is_the_same_for_every_attempt():
    """It comes from the job's id alone, and is valid for any id."""
    assert message_id("0192-ab", SENDER) == "<0192-ab@example.com>"
    strange = message_id("a b>\r\nBcc: x@y", SENDER)
    assert strange == message_id("a b>\r\nBcc: x@y", SENDER)
    assert strange.isprintable()
    assert strange.count("<") == strange.count(">") == 1


def test_html_is_escaped_and_text_is_not(tmp_path):
    """Markup in a value cannot become markup in the mail."""
    (tmp_path / "t.txt").write_text("{{ name }}")
    (tmp_path / "t.html").write_text("<b>{{ name }}</b>")
    content = render("t", {"name": "<script>"}, folder=tmp_path)
    assert content.text == "<script>"
    assert content.html == "<b>&lt;script&gt;</b>"


def test_a_folder_of_templates_comes_before_the_box(tmp_path):
    """A team replaces a shipped template by one of the same name."""
    shipped = render("report-ready", {"title": "May", "rows": 3})
    assert shipped.subject == "Report ready: May"
    (tmp_path / "report-ready.subject.txt").write_text("Ours: {{ title }}")
    assert render("report-ready", {"title": "May", "rows": 3}, folder=tmp_path).subject == (
        "Ours: May"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ undefined_name }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ items.append(1) }}",
        "{% include 'nothing.txt' %}",
        "{{ 1 / 0 }}",
        "{{ broken",
    ],
)
def test_a_template_that_cannot_render_is_an_argument_error(tmp_path, source):
    """Undefined values, forbidden access and broken syntax all end the job with a reason."""
    (tmp_path / "t.txt").write_text(source)
    with pytest.raises(ActorArgumentError, match="'t' does not render"):
        render("t", {"items": []}, folder=tmp_path)


@pytest.mark.parametrize("name", ["nothing", "../letter", "a/b", "", "report-ready.html"])
def test_an_unknown_template_is_refused(name):
    """A template's name is no path."""
    with pytest.raises(ActorArgumentError):
        render(name, {})


def test_the_server_is_read_from_its_url():
    """The scheme decides about TLS and the port."""
    assert parse("smtps://u:p@mail.example.com").port == 465
    server = parse("smtp://us%40er:p@mail.example.com")
    assert (server.port, server.tls, server.user) == (587, "start", "us@er")
    assert parse("smtp://localhost:2525?tls=off").tls == "off"


@pytest.mark.parametrize(
    "url",
    ["mail.example.com", "http://x", "smtp://", "smtp://h:99999", "smtp://u:pw@h?tls=off"],
)
def test_an_unusable_server_url_is_refused_without_its_password(url):
    """A wrong setting is named, and its secret is not."""
    with pytest.raises(ActorSettingsError, match="LEVERET_SMTP_URL") as caught:
        parse(url)
    assert "pw" not in str(caught.value)
