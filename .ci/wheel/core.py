"""Publishing, with pika and nothing else; the rest says which extra brings it."""

# ruff: noqa: S101, PT017 - a program that fails is what is wanted

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata

import leveret
from leveret import outbox, tracing
from leveret.message import decode, encode, encode_arguments

(wanted,) = sys.argv[1:]
assert metadata.version("leveret") == wanted
assert ".venv" not in str(leveret.__file__), leveret.__file__

job = leveret.Job(actor="email.send", arguments={"to": "ada@example.com"}, id="1")
exchange, key, properties = encode(job, timestamp=1.0)
assert (exchange, key) == ("leveret.jobs", "any.email.send")
assert decode(properties, key, encode_arguments(job.arguments)) == job

assert tracing.current() == {}
assert tracing.trace_id(f"00-{'ab' * 16}-{'cd' * 8}-01") == "ab" * 16

publisher = leveret.Publisher("amqp://nobody:nothing@127.0.0.1:1/none", timeout=0.1)
try:
    publisher.send("email.send", {"to": "ada@example.com"})
except leveret.LeveretError as error:
    assert "127.0.0.1" in str(error) or "broker" in str(error), error
else:
    raise AssertionError("nobody can have taken that job")
publisher.close()
try:
    outbox.enqueue(object(), "email.send", {})
except leveret.LeveretError as error:
    assert "SQLAlchemy" in str(error), error

for module, name, extra in (
    ("leveret", "actor", "worker"),
    ("leveret", "Backoff", "worker"),
    ("leveret", "once_session", "postgres"),
    ("leveret.results", "wait", "postgres"),
    ("leveret.broker", "", "worker"),
    ("leveret.store", "", "postgres"),
    ("leveret.fastapi", "", "fastapi"),
    ("leveret.management", "", "cli"),
):
    try:
        getattr(importlib.import_module(module), name or "__name__")
    except ImportError as error:
        assert f"install leveret[{extra}]" in str(error), error
    else:
        raise AssertionError(f"{module} {name} works without leveret[{extra}]")

done = subprocess.run(
    [sys.executable, "-I", "-m", "leveret"], capture_output=True, text=True, check=False
)
assert done.returncode == 2
assert "install leveret[cli]" in done.stderr, done.stderr
assert done.stderr.count("\n") == 1, done.stderr
