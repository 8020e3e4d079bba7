"""Traces without OpenTelemetry: what is believed of a header, and what a log line needs."""

from __future__ import annotations

import json

import pika
import pytest
import yaml

from docs.tools import trace_picture
from leveret import context, tracing
from leveret.context import Run
from leveret.message import Job, decode, encode
from leveret.message.trace import read_trace
from tests.support.pages import ROOT

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "value",
    [
        "",
        7,
        None,
        b"\xff",
        PARENT.encode(),
        PARENT.upper(),
        f"{PARENT} ",
        f"{PARENT}\n",
        f"{PARENT}-00",
        PARENT.replace("00-", "01-", 1),
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331-1",
        "\ud800",
        "x" * 100_000,
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_traceparent_that_is_none_is_ignored_and_refuses_no_job(value):
    """Read or written: with what stands beside it, as W3C asks."""
    headers = {"traceparent": value, "tracestate": "shop=1"}
    job = decode(pika.BasicProperties(headers=headers), "default.a", b"{}")
    assert (job.traceparent, job.tracestate) == (None, None)
    _, _, properties = encode(Job(actor="a", id="1", **headers), timestamp=0.0)
    assert not properties.headers
    assert tracing.trace_id(value) is None


@pytest.mark.parametrize(
    ("state", "carried"),
    [
        ("shop=1,other=2", True),
        ("a=" + "x" * 510, True),
        ("a=" + "x" * 511, False),
        ("a=é", False),
        ("a=1\r\nX-Evil: 1", False),
        ("", False),
        (7, False),
    ],
)
def test_a_tracestate_is_carried_when_it_is_short_and_plain(state, carried):
    """512 characters are what W3C asks for; a line break must not come into a header of HTTP."""
    found = read_trace({"traceparent": PARENT, "tracestate": state})
    assert found == {"traceparent": PARENT} | ({"tracestate": state} if carried else {})


def test_the_trace_of_a_running_job_is_known_without_opentelemetry():
    """By the header of its message, and only while it runs."""
    assert tracing.trace_id() is None
    token = context.running.set(Run(Job(actor="a", id="1", traceparent=PARENT)))
    try:
        assert tracing.trace_id() == TRACE
        assert context.current_job().traceparent == PARENT
    finally:
        context.running.reset(token)
    assert tracing.trace_id() is None
    assert tracing.trace_id(PARENT) == TRACE


def test_the_picture_of_a_trace_is_that_of_the_spans_beside_it(tmp_path):
    """Drawn again, it is the same; and the spans are of one tree."""
    spans = json.loads(trace_picture.SPANS.read_text())
    assert len(trace_picture.ordered(spans)) == len(spans)
    trace_picture.draw(spans, tmp_path / "trace.svg")
    assert (tmp_path / "trace.svg").read_text() == trace_picture.PICTURE.read_text()


def test_every_process_of_the_compose_file_gets_the_variables_of_traces():
    """From a file that need not be there."""
    services = yaml.safe_load((ROOT / "compose/compose.yaml").read_text())["services"]
    processes = {"api", "relay", "recorder", "scheduler"} | {
        name for name in services if name.startswith("worker-")
    }
    assert len(processes) == 8
    for name in processes:
        assert {"path": "traces.env", "required": False} in services[name]["env_file"], name
