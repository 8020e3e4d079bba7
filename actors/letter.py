"""Composing a mail: from templates or given text to one `EmailMessage`. No network here.

A template ``invoice`` is up to three Jinja2 files: ``invoice.subject.txt``, ``invoice.txt`` and
``invoice.html``. HTML is autoescaped, an undefined variable is an error, and templates run in
Jinja2's immutable sandbox.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from actors.error import ActorArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Attachment", "Content", "compose", "message_id", "render"]

SHIPPED_TEMPLATES = Path(__file__).parent / "templates"
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TEMPLATE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a mail says; at least one of ``text`` and ``html`` is there."""

    subject: str
    text: str | None = None
    html: str | None = None


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """A file that goes with a mail."""

    name: str
    content: bytes


def render(template: str, context: Mapping[str, Any], *, folder: Path | None = None) -> Content:
    """Render ``template`` from ``folder``, or from the box where ``folder`` does not have it.

    Raises `ActorArgumentError` for an unknown template, an undefined variable, and whatever else
    Jinja2 objects to.
    """
    if not _TEMPLATE.fullmatch(template):
        raise ActorArgumentError(
            f"{template!r} cannot name a template: use lower-case letters, digits, - and _"
        )
    loaders: list[BaseLoader] = [FileSystemLoader(folder)] if folder else []
    loaders.append(FileSystemLoader(SHIPPED_TEMPLATES))
    jinja = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader(loaders),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def part(suffix: str) -> str | None:
        name = template + suffix
        try:
            found = jinja.get_template(name)
        except TemplateNotFound as error:
            if error.name != name:
                raise
            return None
        return found.render(context)

    try:
        subject, text, html = part(".subject.txt"), part(".txt"), part(".html")
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ActorArgumentError(f"the template {template!r} does not render: {error}") from error
    if text is None and html is None:
        raise ActorArgumentError(
            f"there is no template {template!r}: it would be {template}.txt or {template}.html"
        )
    return Content(subject=(subject or "").strip(), text=text, html=html)


def message_id(job_id: str, sender: str) -> str:
    """Return the Message-ID of the job's mail: the same for every attempt, so receivers can tell.

    An id that is not plain (any text may be a job id) is represented by its SHA-256.
    """
    plain = job_id if _PLAIN_ID.fullmatch(job_id) else hashlib.sha256(job_id.encode()).hexdigest()
    return f"<{plain}@{sender.rpartition('@')[2]}>"


def compose(
    content: Content,
    *,
    job_id: str,
    sender: str,
    to: Sequence[str],
    cc: Sequence[str] = (),
    reply_to: str | None = None,
    attachments: Sequence[Attachment] = (),
) -> EmailMessage:
    """Return the mail. Raises `ActorArgumentError` when a header would hold a control character."""
    headers = {
        "Subject": content.subject,
        "From": sender,
        "To": ", ".join(to),
        "Cc": ", ".join(cc),
        "Reply-To": reply_to or "",
        "Date": formatdate(),
        "Message-ID": message_id(job_id, sender),
        "Auto-Submitted": "auto-generated",
    }
    mail = EmailMessage(policy=SMTP)
    for name, value in headers.items():
        if not value.isprintable():
            raise ActorArgumentError(
                f"the mail's {name} holds a line break or control character: {value[:200]!r}"
            )
        if value:
            mail[name] = value
    if content.text is not None:
        mail.set_content(content.text)
        if content.html is not None:
            mail.add_alternative(content.html, subtype="html")
    else:
        mail.set_content(content.html or "", subtype="html")
    for attachment in attachments:
        guessed = mimetypes.guess_type(attachment.name)[0] or "application/octet-stream"
        kind, _, subtype = guessed.partition("/")
        mail.add_attachment(
            attachment.content,
            maintype=kind,
            subtype=subtype,
            filename=PurePosixPath(attachment.name).name,
        )
    return mail
