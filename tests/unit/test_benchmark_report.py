"""What is written about the rounds."""

import io
import json

import pytest
from rich.console import Console

from tests.benchmarks import report

PROMISED = [
    "publish_confirmed_ratio",
    "publish_pipelined_ratio",
    "drain_ratio",
    "drain_vs_tuned_ratio",
    "latency_p50_ratio",
    "delayed_late_p99_seconds",
    "delayed_early",
    "delayed_lost",
    "delayed_rss_mb_per_10k",
    "retry_ratio",
    "rss_mb",
    "tracked_ratio",
    "recorder_jobs_per_second",
    "outbox_start_p50_ms",
    "api_publish_p50_ms",
    "once_ratio",
    "schedules_start_seconds",
    "schedules_late_p99_ms",
    "schedules_rss_mb",
]

RESULTS = {
    "publish": {
        "leveret": [{"confirmed_per_second": 3.0, "pipelined_per_second": 20.0}],
        "dramatiq": [{"confirmed_per_second": 2.0, "unconfirmed_per_second": 9.0}],
    },
    "drain": {
        "leveret": [
            {"jobs_per_second": 10.0},
            {"jobs_per_second": 30.0},
            {"jobs_per_second": 20.0},
        ],
        "dramatiq": [{"jobs_per_second": 8.0}],
        "dramatiq-tuned": [{"jobs_per_second": 16.0}],
    },
    "latency": {"leveret": [{"p50_ms": 3.0}], "dramatiq": [{"p50_ms": 2.0}]},
    "delayed": {
        "leveret": [
            {"late_p99_seconds": 0.25, "early": 0, "lost": 0, "pss_mb_per_10k": 0.5},
        ],
    },
    "retry": {"leveret": [{"jobs_per_second": 6.0}], "dramatiq": [{"jobs_per_second": 2.0}]},
    "memory": {"leveret": [{"pss_mb": 60.0, "rss_mb": 100.0}]},
    "outbox": {"leveret-outbox": [{"start_p50_ms": 5.0}, {"start_p50_ms": 7.0}]},
    "api": {"leveret-outbox": [{"publish_p50_ms": 4.0}]},
    "tracked": {
        "leveret-tracked": [{"jobs_per_second": 9.0}],
        "dramatiq-tracked": [{"jobs_per_second": 3.0}],
    },
    "recorder": {"leveret-tracked": [{"recorder_jobs_per_second": 7.0}]},
    "once": {"leveret-tracked": [{"once_per_second": 2.0, "plain_per_second": 8.0}]},
    "scheduler": {
        "leveret-scheduler": [{"start_seconds": 1.5, "late_p99_ms": 80.0, "rss_mb": 90.0}]
    },
}


def test_each_promised_figure_is_held_against_its_own_base():
    """Speeds are ours over theirs, so more is better; latency is a time, so less is better."""
    assert report.headline(RESULTS) == {
        "publish_confirmed_ratio": 1.5,
        "publish_pipelined_ratio": 10.0,
        "drain_ratio": 2.5,
        "drain_vs_tuned_ratio": 1.25,
        "latency_p50_ratio": 1.5,
        "delayed_late_p99_seconds": 0.25,
        "delayed_early": 0,
        "delayed_lost": 0,
        "delayed_rss_mb_per_10k": 0.5,
        "retry_ratio": 3.0,
        "rss_mb": 60.0,
        "tracked_ratio": 3.0,
        "recorder_jobs_per_second": 7.0,
        "outbox_start_p50_ms": 6.0,
        "api_publish_p50_ms": 4.0,
        "once_ratio": 0.25,
        "schedules_start_seconds": 1.5,
        "schedules_late_p99_ms": 80.0,
        "schedules_rss_mb": 90.0,
    }


@pytest.mark.parametrize("results", [{}, RESULTS])
def test_the_file_has_exactly_the_promised_keys_and_the_details(tmp_path, results):
    """Whoever reads the file finds every key, measured or not."""
    path = tmp_path / "build" / "bench.json"
    report.write(path, results, conditions={"rounds": 3})
    written = json.loads(path.read_text())
    assert list(written) == [*PROMISED, "details"]
    assert written["details"]["conditions"] == {"rounds": 3}


def test_the_details_tell_how_far_the_rounds_lie_apart(tmp_path):
    """A ratio can be judged only beside the spread of what it is made of."""
    report.write(tmp_path / "bench.json", RESULTS, conditions={})
    details = json.loads((tmp_path / "bench.json").read_text())["details"]
    assert details["spreads"]["drain"]["leveret"]["jobs_per_second"] == {
        "median": 20.0,
        "low": 10.0,
        "high": 30.0,
        "rounds": 3,
    }


def test_tables_name_every_contestant_and_leave_out_what_it_cannot_do():
    """A contestant without pipelining shows a dash there, not a zero."""
    console = Console(file=io.StringIO(), width=120)
    report.show(console, RESULTS)
    shown = console.file.getvalue()
    row = next(line for line in shown.splitlines() if "│ dramatiq " in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["dramatiq", "2", "-", "9"]
    assert "dramatiq-tuned" in shown
