"""Webhook signatures against the standard's own library and its published example."""

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from actors.error import ActorSettingsError
from actors.signature import headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_published_example_has_its_published_signature():
    """The example of the Standard Webhooks libraries comes out to the letter."""
    made = headers(
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        secrets=[SECRET],
    )
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_standard_library_accepts_it_and_refuses_a_changed_body():
    """A receiver with an off-the-shelf verifier can check what we send."""
    now = int(datetime.now(UTC).timestamp())
    made = headers(b'{"a":1}', message_id="j1", timestamp=now, secrets=[SECRET])
    assert Webhook(SECRET).verify(b'{"a":1}', made) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b'{"a":2}', made)


def test_during_a_rotation_both_secrets_verify():
    """Receivers with the old and with the new secret accept the same delivery."""
    other = "whsec_" + base64.b64encode(b"another key").decode()
    now = int(datetime.now(UTC).timestamp())
    made = headers(b"{}", message_id="j1", timestamp=now, secrets=[SECRET, other])
    for secret in (SECRET, other):
        assert Webhook(secret).verify(b"{}", made) == {}


def test_a_broken_secret_is_refused_and_not_shown():
    """The message names the variable, not the secret."""
    with pytest.raises(ActorSettingsError, match="LEVERET_WEBHOOK_SECRET") as caught:
        headers(b"", message_id="j", timestamp=0, secrets=["whsec_not*base64"])
    assert "not*base64" not in str(caught.value)
