"""Reading the actors' settings from the environment."""

from pathlib import Path

import pytest

from actors.error import ActorArgumentError, ActorSettingsError
from actors.settings import (
    EmailSettings,
    ReportSettings,
    StorageSettings,
    WebhookSettings,
    load,
    source_url,
    webhook_secrets,
)


def test_an_empty_environment_gives_the_defaults():
    """Nothing is needed to read a group; what is needed is asked for by the actor."""
    assert load(EmailSettings, {}) == EmailSettings()


def test_each_kind_of_value_is_parsed():
    """Text becomes the type of its field."""
    webhook = load(
        WebhookSettings,
        {
            "LEVERET_WEBHOOK_ALLOW_PRIVATE": "yes",
            "LEVERET_WEBHOOK_REDIRECTS": "3",
            "LEVERET_WEBHOOK_TIMEOUT_SECONDS": "2.5",
            "LEVERET_WEBHOOK_CA_FILE": "ca.pem",
        },
    )
    assert webhook == WebhookSettings(
        allow_private=True, redirects=3, timeout_seconds=2.5, ca_file=Path("ca.pem")
    )
    storage = load(
        StorageSettings,
        {
            "LEVERET_STORAGE_PROTOCOLS": "file, s3",
            "LEVERET_STORAGE_OPTIONS": '{"anon": true}',
        },
    )
    assert storage.protocols == ("file", "s3")
    assert storage.options == {"anon": True}


@pytest.mark.parametrize(
    ("group", "variable", "text"),
    [
        (WebhookSettings, "LEVERET_WEBHOOK_ALLOW_PRIVATE", "perhaps"),
        (WebhookSettings, "LEVERET_WEBHOOK_REDIRECTS", "-1"),
        (WebhookSettings, "LEVERET_WEBHOOK_TIMEOUT_SECONDS", "0"),
        (WebhookSettings, "LEVERET_WEBHOOK_TIMEOUT_SECONDS", "nan"),
        (EmailSettings, "LEVERET_EMAIL_ATTACHMENT_BYTES", "10MB"),
        (ReportSettings, "LEVERET_SOURCE_OPTIONS", "[1]"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(group, variable, text):
    """An operator learns which variable to correct."""
    with pytest.raises(ActorSettingsError, match=variable):
        load(group, {variable: text})


def test_a_wrong_secret_is_not_shown():
    """Options can hold a key; a broken one must not reach a log."""
    with pytest.raises(ActorSettingsError) as caught:
        load(StorageSettings, {"LEVERET_STORAGE_OPTIONS": '{"secret": "hunter2"'})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(EmailSettings(url="smtp://u:hunter2@h"))


def test_the_environment_is_read_at_first_use_and_then_kept(monkeypatch):
    """Importing reads nothing, and a job does not see half a change."""
    monkeypatch.setenv("LEVERET_SMTP_FROM", "first@example.com")
    assert load(EmailSettings).sender == "first@example.com"
    monkeypatch.setenv("LEVERET_SMTP_FROM", "second@example.com")
    assert load(EmailSettings).sender == "first@example.com"


def test_a_source_is_found_by_its_name():
    """The name of a source is part of its variable."""
    assert source_url("flights", {"LEVERET_SOURCE_FLIGHTS_URL": "/data/f.csv"}) == "/data/f.csv"
    with pytest.raises(ActorSettingsError, match="LEVERET_SOURCE_TRAINS_URL"):
        source_url("trains", {})


@pytest.mark.parametrize("name", ["", "Flights", "a-b", "../x", "a" * 64, "é"])
def test_a_name_that_is_no_variable_is_refused(name):
    """A job cannot reach other variables by a strange name."""
    with pytest.raises(ActorArgumentError):
        source_url(name, {})


def test_webhook_secrets_can_be_several_and_named():
    """A rotation has two secrets at once, and receivers can have their own."""
    environ = {"LEVERET_WEBHOOK_SECRET": "new old", "LEVERET_WEBHOOK_SECRET_SHOP": "shop"}
    assert webhook_secrets(None, environ) == ("new", "old")
    assert webhook_secrets("shop", environ) == ("shop",)
    with pytest.raises(ActorSettingsError, match="LEVERET_WEBHOOK_SECRET_BANK"):
        webhook_secrets("bank", environ)


def test_secrets_of_the_actors_may_be_in_files(tmp_path):
    """A URL with a password, a data source and the signing secrets, by the same convention."""
    (tmp_path / "smtp").write_text("smtp://u:p@h\n")
    (tmp_path / "source").write_text("postgresql+psycopg://u:p@h/d\n")
    (tmp_path / "signing").write_text("whsec_new whsec_old\n")
    environ = {
        "LEVERET_SMTP_URL_FILE": str(tmp_path / "smtp"),
        "LEVERET_SOURCE_SHOP_URL_FILE": str(tmp_path / "source"),
        "LEVERET_WEBHOOK_SECRET_FILE": str(tmp_path / "signing"),
        "LEVERET_WEBHOOK_SECRET_ACME_FILE": str(tmp_path / "signing"),
    }
    assert load(EmailSettings, environ).url == "smtp://u:p@h"
    assert source_url("shop", environ) == "postgresql+psycopg://u:p@h/d"
    assert webhook_secrets(environ=environ) == ("whsec_new", "whsec_old")
    assert webhook_secrets("acme", environ) == ("whsec_new", "whsec_old")
    with pytest.raises(ActorArgumentError, match="'file' cannot name"):
        webhook_secrets("file", environ)


def test_a_missing_file_of_a_secret_is_told_as_a_wrong_setting(tmp_path):
    """The job is tried again, since an operator can correct it."""
    with pytest.raises(ActorSettingsError, match="LEVERET_SMTP_URL_FILE names"):
        load(EmailSettings, {"LEVERET_SMTP_URL_FILE": str(tmp_path / "none")})
