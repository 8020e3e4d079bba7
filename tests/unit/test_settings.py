"""Settings from the environment: every variable, its errors, and what is masked."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from leveret.amqp.address import parse_urls
from leveret.errors import ConfigurationError
from leveret.settings import Settings
from services.worker.options import parse

GOOD = {
    "LEVERET_AMQP_URL": ("amqp://u:p@h/v", "amqp://u:p@h/v"),
    "LEVERET_DATABASE_URL": ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    "LEVERET_DATABASE_LISTEN_URL": ("postgresql://h/d", "postgresql://h/d"),
    "LEVERET_RESULT_STORE": ("s3://bucket/results", "s3://bucket/results"),
    "LEVERET_OUTBOX_URLS": ("postgresql://h/a,postgresql://h/b",) * 2,
    "LEVERET_OUTBOX_LISTEN_URLS": ("postgresql://h/a", "postgresql://h/a"),
    "LEVERET_CLAIMS_URL": ("postgresql://u:p@h/shop", "postgresql://u:p@h/shop"),
    "LEVERET_CLAIM_LEASE": ("10", timedelta(seconds=10)),
    "LEVERET_CLAIM_KEEP": ("3600", timedelta(hours=1)),
    "LEVERET_SCHEDULER_LEASE": ("2.5", timedelta(seconds=2.5)),
    "LEVERET_RETENTION_DAYS": ("90", 90),
    "LEVERET_HOUSEKEEPING": ("false", False),
    "LEVERET_MANAGEMENT_URL": ("http://u:p@h:15672", "http://u:p@h:15672"),
    "LEVERET_ACTORS": (" acme.jobs, acme.more ,", ("acme.jobs", "acme.more")),
    "LEVERET_SCHEDULES": ("a.toml, b.toml", ("a.toml", "b.toml")),
    "LEVERET_QUEUES": ("default,gpu-1", ("default", "gpu-1")),
    "LEVERET_APP_ID": ("shop", "shop"),
    "LEVERET_PUBLISH_TIMEOUT": ("2.5", timedelta(seconds=2.5)),
    "LEVERET_MAX_BODY_BYTES": ("2048", 2048),
    "LEVERET_PREFETCH": ("0", 0),
    "LEVERET_EDITED_REPLAY": ("True", True),
    "LEVERET_HTTP_HOST": ("0.0.0.0", "0.0.0.0"),
    "LEVERET_HTTP_PORT": ("8080", 8080),
    "LEVERET_HTTP_TRUSTED_PROXIES": ("10.0.0.1, 10.0.0.2", ("10.0.0.1", "10.0.0.2")),
    "LEVERET_LOG_LEVEL": ("WARNING", "warning"),
    "LEVERET_LOG_FORMAT": ("json", "json"),
}
BAD = {
    "LEVERET_QUEUES": ["any", "Default", "a,a", "a b", ",", "a.b", "é"],
    "LEVERET_PUBLISH_TIMEOUT": ["0", "-1", "soon", "nan", "inf", "1e9", "1e-300"],
    "LEVERET_CLAIM_LEASE": ["0", "-1", "long"],
    "LEVERET_CLAIM_KEEP": ["0", "forever"],
    "LEVERET_SCHEDULER_LEASE": ["0", "0.9", "3601", "nan", "long"],
    "LEVERET_RETENTION_DAYS": ["0", "36501", "1.5", "a week"],
    "LEVERET_MAX_BODY_BYTES": ["0", "-5", "1.5", "1e6", "many", str(2**40), "9" * 5000],
    "LEVERET_PREFETCH": ["65536", "-1", "x", "²"],
    "LEVERET_HOUSEKEEPING": ["off"],
    "LEVERET_EDITED_REPLAY": ["yes", "1"],
    "LEVERET_HTTP_PORT": ["http", "-1", "65536", "8080.0"],
    "LEVERET_LOG_LEVEL": ["loud"],
    "LEVERET_LOG_FORMAT": ["xml"],
}


def test_every_setting_is_read_from_its_variable():
    """And the table above has them all."""
    assert set(GOOD) == {f"LEVERET_{f.name.upper()}" for f in dataclasses.fields(Settings)}
    found = Settings.from_env({name: text for name, (text, _) in GOOD.items()})
    for name, (_, value) in GOOD.items():
        assert getattr(found, name.removeprefix("LEVERET_").lower()) == value


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_is_as_good_as_none(name, text):
    """Compose files and unit files write empty ones."""
    assert Settings.from_env({name: text}) == Settings()


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, texts in BAD.items() for t in texts])
def test_a_wrong_value_is_refused_with_its_variable_and_what_is_wanted(name, text):
    """One clear line, that does not speak of Python."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: text})
    said = str(caught.value)
    assert said.startswith(f"{name} is ")
    assert "literal" not in said
    assert "convert" not in said


SECRETS = [
    f"LEVERET_{setting.name.upper()}"
    for setting in dataclasses.fields(Settings)
    if setting.metadata["secret"]
]


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_may_be_in_a_file(name, tmp_path):
    """As Docker and Kubernetes hand secrets out; the newline at its end is no part of it."""
    text, value = GOOD[name]
    (tmp_path / "secret").write_text(f"{text}\n")
    found = Settings.from_env({f"{name}_FILE": str(tmp_path / "secret")})
    assert getattr(found, name.removeprefix("LEVERET_").lower()) == value


def test_a_setting_that_is_no_secret_is_in_no_file(tmp_path):
    """It has nothing to hide, and one place to look for it."""
    (tmp_path / "port").write_text("8080")
    assert Settings.from_env({"LEVERET_HTTP_PORT_FILE": str(tmp_path / "port")}) == Settings()


def test_a_secret_is_in_its_variable_or_in_a_file_but_not_in_both(tmp_path):
    """Nobody has to know which one wins; and an empty variable is none."""
    (tmp_path / "secret").write_text("amqp://u:FILED@h/v")
    environ = {"LEVERET_AMQP_URL": "amqp://u:SAID@h/v"}
    environ["LEVERET_AMQP_URL_FILE"] = str(tmp_path / "secret")
    with pytest.raises(ConfigurationError, match="LEVERET_AMQP_URL_FILE are both set") as caught:
        Settings.from_env(environ)
    assert "SAID" not in str(caught.value)
    assert "FILED" not in str(caught.value)
    environ["LEVERET_AMQP_URL"] = " "
    assert Settings.from_env(environ).amqp_url == "amqp://u:FILED@h/v"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), (b" \n", "empty"), (b"\xff\xfe", "no text")]
)
def test_a_file_without_a_secret_is_refused_by_its_name(content, reason, tmp_path):
    """The operator learns which file, and what is wrong with it."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        Settings.from_env({"LEVERET_DATABASE_URL_FILE": str(file)})
    assert str(caught.value).startswith(f"LEVERET_DATABASE_URL_FILE names '{file}'")


def test_settings_cannot_be_changed():
    """They are read once."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().prefetch = 5


def test_a_missing_broker_is_told_with_an_example():
    """The message shows what an address looks like."""
    with pytest.raises(ConfigurationError, match=r"LEVERET_AMQP_URL is not set.*amqp://"):
        Settings().require_amqp_url()


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:SECRET@h/v",
        "amqp://u:SECRET@h1/v,amqp://u:SECRET@h2/v",
        "amqp://:SECRET@h",
        "amqp://u:SE%2FCRET-SECRET@h/v",
        "postgresql://h/d?user=u&password=SECRET&sslmode=require",
        "host=h user=u password=SECRET dbname=d",
        "postgresql+psycopg://u:SECRET@[::1]:5432/d",
        "amqp://u:pa/SECRET@h/v",
        "amqp://u:x@SECRET@h/v",
        "http://u:[SECRET@h",
    ],
)
def test_no_secret_is_ever_shown(url):
    """Wherever in the address it stands, also in one that is badly written."""
    for name in ("amqp_url", "database_url", "management_url"):
        shown = Settings(**{name: url}).masked()[f"LEVERET_{name.upper()}"]
        assert "SECRET" not in shown
        assert "*" in shown


def test_what_is_no_secret_is_shown_as_it_would_be_written():
    """Reading the output back gives the same settings."""
    found = Settings.from_env({n: t for n, (t, _) in GOOD.items() if "_URL" not in n})
    assert Settings.from_env(found.masked()) == found
    assert Settings(amqp_url="amqp://u@h/v").masked()["LEVERET_AMQP_URL"] == "amqp://u@h/v"


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "h:5672",
        "amqp://",
        "amqp://u:xyzzy@[::1",
        "amqp://u:xy/zzy@h",
        "amqp://u:xyzzy@h:port/v",
        "amqp://u:xyzzy@h/v?heartbeat=soon",
        "amqp://u:xyzzy@h/v,nonsense",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(url):
    """The error names the variable and shows the form."""
    with pytest.raises(ConfigurationError, match="LEVERET_AMQP_URL") as caught:
        parse_urls(url, "test")
    assert "xy" not in str(caught.value)
    assert caught.value.__cause__ is None


# ------------------------------------------------------------------- the worker's command line


def test_the_worker_takes_its_options():
    """With the queues' order kept."""
    found = parse(
        ["--queues", "bulk, default", "--threads", "3", "--processes", "1", "--grace", "0"],
        Settings(prefetch=7),
    )
    assert found.queues == ("bulk", "default")
    assert (found.threads, found.processes, found.grace, found.prefetch) == (3, 1, 0.0, 7)


def test_by_default_the_worker_serves_all_queues_on_all_processors(monkeypatch):
    """And no port is opened."""
    monkeypatch.delenv("LEVERET_HTTP_PORT", raising=False)
    found = parse([], Settings())
    assert found.queues == Settings().queues
    assert found.processes >= 1
    assert found.http_port == 0


@pytest.mark.parametrize("queues", ["", ",", "nosuch", "default,default"])
def test_queues_that_make_no_sense_are_refused(queues):
    """None, unknown, or one twice."""
    with pytest.raises(ConfigurationError, match="--queues"):
        parse(["--queues", queues], Settings())


@pytest.mark.parametrize(
    "arguments",
    [["--threads", "0"], ["--processes", "x"], ["--grace", "-1"], ["--prefetch", "-1"], ["--x"]],
)
def test_wrong_numbers_are_refused_by_the_command_line(arguments, capsys):
    """With the usage, and status 2."""
    with pytest.raises(SystemExit) as caught:
        parse(arguments, Settings())
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_relay_serves_the_leveret_database_unless_told_otherwise():
    """With PostgreSQL itself for LISTEN, where the other is PgBouncer."""
    found = Settings(database_url="postgresql://bouncer/d", database_listen_url="postgresql://h/d")
    assert found.outboxes() == (("postgresql://bouncer/d", "postgresql://h/d"),)
    with pytest.raises(ConfigurationError, match="LEVERET_DATABASE_URL is not set"):
        Settings().outboxes()


def test_a_relay_may_serve_several_databases():
    """A comma separates URLs; one for LISTEN belongs to each, if any."""
    several = "postgresql://h1:1/a, postgresql+psycopg://u:p@h/b,"
    first, second = "postgresql://h1:1/a", "postgresql+psycopg://u:p@h/b"
    assert Settings(outbox_urls=several).outboxes() == ((first, first), (second, second))
    listen = "postgresql://l/a,postgresql://l/b"
    assert Settings(outbox_urls=several, outbox_listen_urls=listen).outboxes() == (
        (first, "postgresql://l/a"),
        (second, "postgresql://l/b"),
    )
    with pytest.raises(ConfigurationError, match="has 1 URLs and LEVERET_OUTBOX_URLS 2"):
        Settings(outbox_urls=several, outbox_listen_urls="postgresql://l/a").outboxes()


def test_the_passwords_of_all_databases_are_masked():
    """Each URL of a list has its own."""
    shown = Settings(outbox_urls="postgresql://u:secret@h/a,postgresql://u:hidden@h/b").masked()
    assert shown["LEVERET_OUTBOX_URLS"] == "postgresql://u:***@h/a,postgresql://u:***@h/b"
