"""Webhook signatures as Standard Webhooks defines them (https://www.standardwebhooks.com).

The signature is HMAC-SHA256 over ``<id>.<timestamp>.<body>``, in base64 behind ``v1,``. A secret is
``whsec_`` and the key in base64; any other text is itself the key. Where several secrets sign, the
header holds one signature for each, separated by spaces.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING

from actors.error import ActorSettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["headers"]

_PREFIX = "whsec_"


def headers(
    body: bytes, *, message_id: str, timestamp: int, secrets: Sequence[str]
) -> dict[str, str]:
    """Return the headers by which a receiver checks ``body``; ``timestamp`` in Unix seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [hmac.digest(_key(secret), signed, hashlib.sha256) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            "v1," + base64.b64encode(signature).decode() for signature in signatures
        ),
    }


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ActorSettingsError(
            "LEVERET_WEBHOOK_SECRET: what follows whsec_ must be base64"
        ) from error
