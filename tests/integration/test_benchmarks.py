"""The benchmark harness itself: that it runs, and that its counts are checked."""

import json

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.report import headline


def test_a_quick_run_measures_every_contestant_and_writes_the_figures(tmp_path, capsys):
    """Two rounds of two contestants leave a file with exactly the promised keys."""
    output = tmp_path / "bench.json"
    status = main(
        [
            *("--quick", "--rounds", "2", "--only", "publish,drain"),
            *("--contestants", "dramatiq,pika", "--output", str(output)),
        ]
    )
    shown = capsys.readouterr().out
    assert status == 0, shown
    written = json.loads(output.read_text())
    assert list(written) == [*headline({}), "details"]
    rounds = written["details"]["rounds"]
    for contestant in ("dramatiq", "pika"):
        assert [set(sample) >= {"confirmed_per_second"} for sample in rounds["publish"][contestant]]
        assert len(rounds["drain"][contestant]) == 2
        assert all(sample["jobs_per_second"] > 0 for sample in rounds["drain"][contestant])
    assert written["drain_ratio"] is None, "what was not measured has no figure"


@pytest.mark.parametrize(
    "arguments", [["--only", "speed"], ["--contestants", "nobody"], ["--rounds", "0"]]
)
def test_what_cannot_be_measured_is_refused_at_once(arguments, capsys):
    """A misspelt scenario does not cost ten minutes."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err
