"""``email.send``: one mail to one or several recipients."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import EmailStr, Field, JsonValue

import leveret
from actors import smtp
from actors.error import DEAD_ON, RETRY_ON, ActorArgumentError, ActorSettingsError
from actors.job import job_id
from actors.letter import Attachment, Content, compose, message_id, render
from actors.settings import EmailSettings, load
from actors.storage import storage

__all__ = ["send"]

Addresses = Annotated[list[EmailStr], Field(min_length=1, max_length=50)]
Line = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f]*$")]
Body = Annotated[str, Field(max_length=500_000)]


@leveret.actor(
    "email.send",
    queue="default",
    time_limit=timedelta(minutes=2),
    max_retries=8,
    backoff=leveret.Backoff(base=timedelta(seconds=15), cap=timedelta(hours=1)),
    retry_on=RETRY_ON,
    dead_on=DEAD_ON,
)
def send(
    *,
    to: Addresses | EmailStr,
    subject: Line | None = None,
    text: Body | None = None,
    html: Body | None = None,
    template: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] | None = None,
    context: dict[str, JsonValue] | None = None,
    cc: Annotated[list[EmailStr], Field(max_length=50)] | None = None,
    bcc: Annotated[list[EmailStr], Field(max_length=50)] | None = None,
    sender: EmailStr | None = None,
    reply_to: EmailStr | None = None,
    attachments: Annotated[list[str], Field(max_length=20)] | None = None,
) -> dict[str, Any]:
    """Send a mail from ``template`` and ``context``, or from ``subject`` with ``text`` or ``html``.

    A ``subject`` beside a template replaces the template's. ``attachments`` are references into the
    storage. The mail goes to all recipients or to none. Its Message-ID comes from the job's id: a
    job that is delivered twice may send twice, and receivers can tell by it.
    """
    settings = load(EmailSettings)
    if not settings.url:
        raise ActorSettingsError("there is no mail server: set LEVERET_SMTP_URL")
    origin = sender or settings.sender
    if not origin:
        raise ActorSettingsError("the job names no sender: set LEVERET_SMTP_FROM")

    receivers = [to] if isinstance(to, str) else to
    given = Content(subject=subject or "", text=text, html=html)
    content = _content(given, template, context or {}, settings.templates)
    recipients = list(dict.fromkeys([*receivers, *(cc or []), *(bcc or [])]))
    job = job_id()
    mail = compose(
        content,
        job_id=job,
        sender=origin,
        to=receivers,
        cc=cc or [],
        reply_to=reply_to,
        attachments=_attached(attachments or [], settings.attachment_bytes),
    )
    smtp.deliver(
        mail,
        url=settings.url,
        sender=origin,
        recipients=recipients,
        ca_file=settings.ca_file,
        timeout_seconds=settings.timeout_seconds,
    )
    return {"message_id": message_id(job, origin), "recipients": len(recipients)}


def _content(
    given: Content, template: str | None, context: dict[str, JsonValue], folder: Path | None
) -> Content:
    inline = given.text is not None or given.html is not None
    if (template is not None) == inline:
        raise ActorArgumentError("give either a template, or text or html (or both of these)")
    content = given
    if template is not None:
        content = render(template, context, folder=folder)
        content = replace(content, subject=given.subject or content.subject)
    if not content.subject:
        raise ActorArgumentError("the mail has no subject: give one, or a .subject.txt template")
    return content


def _attached(references: list[str], limit: int) -> list[Attachment]:
    attached, left = [], limit
    for reference in references:
        content = storage().read(reference, limit=left)
        left -= len(content)
        attached.append(Attachment(name=PurePosixPath(reference).name, content=content))
    return attached
