"""The board that all contestants write to."""

import multiprocessing

import pytest

from tests.benchmarks import board
from tests.benchmarks.arena import expect_exactly
from tests.benchmarks.error import BenchmarkError


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Give a board of ten places, named to this process as a worker's would be."""
    made = board.Board.create(tmp_path / "board", 10)
    monkeypatch.setenv(board.BOARD_VARIABLE, str(made.path))
    monkeypatch.setattr(board, "_board", None)
    return made


def test_a_run_is_noted_with_its_time_and_its_count(shared):
    """Two runs of one job leave the first and the last time, and the others untouched."""
    assert shared.mark(3) == 0
    assert shared.mark(3) == 1
    assert list(shared.runs(range(10))) == [0, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    assert 0 < shared.first(range(3, 4))[0] <= shared.last(range(3, 4))[0]
    assert shared.first(range(3)) == [0, 0, 0]


def test_the_count_stops_before_it_would_overflow(shared):
    """A job that runs over and over does not bring its worker down."""
    for _ in range(300):
        shared.mark(0)
    assert shared.runs(range(1)) == bytes([255])


def _run_all(jobs):
    for job in jobs:
        board.noop(job)


def test_other_processes_write_to_the_same_board(shared):
    """What a spawned process notes is seen here."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_all, args=(range(10),))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert shared.runs(range(10)) == bytes([1]) * 10


def test_flaky_fails_once_and_then_succeeds(shared):
    """The second run of a job ends well."""
    with pytest.raises(board.FailedOnceError, match="job 4 "):
        board.flaky(4)
    board.flaky(4)
    assert shared.runs(range(4, 5)) == bytes([2])


@pytest.mark.parametrize(
    ("marks", "complaint"),
    [([0, 1], "1 ran fewer and 0 more"), ([0, 1, 2, 2], "0 ran fewer and 1")],
)
def test_counts_that_are_not_exact_are_refused(shared, marks, complaint):
    """A lost job and a job that ran twice each spoil the round."""
    for job in marks:
        shared.mark(job)
    with pytest.raises(BenchmarkError, match=complaint):
        expect_exactly(shared, range(3), runs=1, what="trial")
