"""What it costs a job to have its effects once: a claim before the run, its completion after it.

As in `drain`, the queue is filled while no worker runs, and the clock runs from the first job to
the last: once with plain jobs, once with the same jobs published as ``once``. The same workers run
both, with the same settings, so that the ratio is the price of two round trips to PostgreSQL, each
of which waits for the disk there.
"""

import time

import psycopg

from tests.benchmarks.arena import Arena
from tests.benchmarks.contestants import Ability, Contestant
from tests.benchmarks.error import BenchmarkError
from tests.benchmarks.scenarios import Repeated, Sample

_PATIENCE_SECONDS = 20.0


class Once(Repeated):
    """Speed of jobs that are once, beside plain ones."""

    name = "once"
    needs = Ability.ONCE

    def __init__(self, *, jobs: int = 10_000) -> None:
        self._jobs = range(jobs)

    def run(self, arena: Arena, contestant: Contestant) -> Sample:
        """Time both kinds, each with an empty database."""
        return {
            "plain_per_second": self._speed(arena, contestant, "noop", claims=0),
            "once_per_second": self._speed(arena, contestant, "once", claims=len(self._jobs)),
        }

    def _speed(self, arena: Arena, contestant: Contestant, actor: str, *, claims: int) -> float:
        jobs, what = self._jobs, f"{contestant.name} {actor}"
        arena.prepare(contestant)
        url = arena.new_database(contestant)
        with arena.drained(contestant, actor, jobs, purpose=f"{self.name}-{actor}") as board:
            stamps = sorted(board.last(jobs))
            _expect_claims(url, claims, what)
        return (len(stamps) - 1) / ((stamps[-1] - stamps[0]) / 1e9)


def _expect_claims(url: str, wanted: int, what: str) -> None:
    """Wait until so many claims are done, and there are no others."""
    end = time.monotonic() + _PATIENCE_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM claims"
            ).fetchone()
            if row == (wanted, wanted):
                return
            if time.monotonic() > end:
                raise BenchmarkError(f"{what}: {row} claims and done ones, not {wanted}")
            time.sleep(0.1)
