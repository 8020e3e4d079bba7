"""Unique jobs: the pure decision, and what follows from it in any order of events."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from leveret.claims.decision import Published, Standing, Wish, decide

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    """Return a time."""
    return BEGIN + timedelta(seconds=seconds)


def job(name, seconds):
    """Return a job and when it was published."""
    return Published(job_id=name, at=at(seconds))


def standing(name, published, started, done=None, held=1000):
    """Return a job that stands for its key."""
    return Standing(
        job=job(name, published),
        started_at=at(started),
        done_at=None if done is None else at(done),
        held_until=at(held),
    )


def ask(wish, found=None, later=(), now=500):
    """Return the decision."""
    return decide(wish, found, later, at(now))


def test_nobody_stands_in_the_way_of_the_first_or_of_itself():
    """Every attempt of a job is that job."""
    wish = Wish(job=job("a", 0), period=timedelta(days=1), until="done")
    assert ask(wish) is None
    assert ask(wish, standing("a", 0, 1)) is None


def test_until_started_a_job_stands_for_those_published_before():
    """And not for one published after."""
    found = standing("a", 0, 10)
    assert ask(Wish(job=job("b", 10), until="started"), found) == "duplicate of a"
    assert ask(Wish(job=job("b", 11), until="started"), found) is None


def test_until_done_a_job_stands_while_it_runs_and_for_those_published_before_its_end():
    """Unless nothing was heard of it for too long."""
    wish = Wish(job=job("b", 20), until="done")
    assert ask(wish, standing("a", 0, 10)) == "duplicate of a"
    assert ask(wish, standing("a", 0, 10, held=400)) is None
    assert ask(wish, standing("a", 0, 10, done=20)) == "duplicate of a"
    assert ask(wish, standing("a", 0, 10, done=19)) is None


def test_for_a_time_a_job_stands_for_those_published_within_it():
    """Also when it has long been done."""
    found = standing("a", 100, 110, done=120)
    for published, wanted in ((50, "duplicate of a"), (159, "duplicate of a"), (160, None)):
        wish = Wish(job=job("b", published), period=timedelta(seconds=60))
        assert ask(wish, found) == wanted


def test_a_job_gives_way_to_a_later_one_that_is_known():
    """To the last of them; with a time, only to one within it."""
    wish = Wish(job=job("b", 20), on_conflict="replace")
    later = [job("c", 30), job("e", 50), job("a", 10)]
    assert ask(wish, later=later) == "replaced by e"
    assert ask(replace(wish, period=timedelta(seconds=30)), later=later) == "replaced by c"
    assert ask(wish, standing("d", 40, 45), [job("a", 10)]) == "replaced by d"
    assert ask(wish, standing("a", 10, 15), [job("a", 10)]) is None
    assert ask(wish, later=[job("c", 20)]) == "replaced by c"
    assert ask(wish, later=[job("a", 20)]) is None


# ---------------------------------------------------------------------------- whole histories


@dataclass
class Ran:
    """A job that ran."""

    job: Published
    started: int
    done: int | None = None
    fate: str = "done"


#: What happens at each second: job n starts or ends. Jobs are published at the times given.
_HISTORY = st.tuples(
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from(["start", "end", "end", "die"])), max_size=60
    ),
)


def play(published, events, wish):
    """Play a history by the rules of the table; return who ran, and who was left out for whom."""
    jobs = {n: job(f"job-{n}", seconds) for n, seconds in enumerate(published)}
    row, running, ran, left_out = None, {}, [], {}
    for now, (n, event) in enumerate(events):
        if n not in jobs:
            continue
        if event == "start" and n not in running and n not in left_out and published[n] <= now:
            known = [
                other for m, other in jobs.items() if m not in left_out and published[m] <= now
            ]
            reason = decide(replace(wish, job=jobs[n]), row, known, at(now))
            if reason is not None:
                left_out[n] = (reason, now)
                continue
            if any(r.job == jobs[n] for r in ran):
                continue  # it has run; a delivery of it once more is not this history's business
            running[n] = Ran(jobs[n], now)
            ran.append(running[n])
            row = Standing(job=jobs[n], started_at=at(now), held_until=at(10_000))
        elif event in ("end", "die") and n in running:
            found = running.pop(n)
            found.done, found.fate = now, event
            if row is not None and row.job == found.job:
                row = replace(row, done_at=at(now)) if event == "end" else None
    return jobs, ran, left_out


@given(_HISTORY)
def test_until_started_whoever_is_left_out_was_published_before_another_started(history):
    """So that nothing that was asked for is missed."""
    published, events = history
    _, ran, left_out = play(published, events, Wish(job=job("", 0), until="started"))
    for n, (reason, now) in left_out.items():
        other = next(r for r in ran if reason == f"duplicate of {r.job.job_id}")
        assert published[n] <= other.started <= now


@given(_HISTORY)
def test_until_done_never_two_run_at_once(history):
    """And whoever is left out was published before the end of another."""
    published, events = history
    _, ran, left_out = play(published, events, Wish(job=job("", 0), until="done"))
    for one, other in itertools.pairwise(ran):
        assert one.done is not None
        assert one.done < other.started
    for n, (reason, _) in left_out.items():
        other = next(r for r in ran if reason == f"duplicate of {r.job.job_id}")
        assert other.done is None or published[n] <= other.done


@given(_HISTORY, st.integers(1, 30))
def test_for_a_time_those_that_ran_were_published_that_far_apart(history, seconds):
    """Where none of them died."""
    published, events = history
    events = [(n, "end" if event == "die" else event) for n, event in events]
    wish = Wish(job=job("", 0), period=timedelta(seconds=seconds))
    _, ran, left_out = play(published, events, wish)
    times = [(r.job.at - BEGIN).total_seconds() for r in ran]
    assert all(b - a >= seconds for a, b in itertools.pairwise(times))
    for n, (reason, _) in left_out.items():
        other = next(r for r in ran if reason == f"duplicate of {r.job.job_id}")
        assert published[n] < (other.job.at - BEGIN).total_seconds() + seconds


@given(_HISTORY)
def test_of_replaced_jobs_the_last_is_never_left_out(history):
    """And whoever is left out, is for a later one."""
    published, events = history
    jobs, _, left_out = play(published, events, Wish(job=job("", 0), on_conflict="replace"))
    for n, (reason, _) in left_out.items():
        other = next(o for o in jobs.values() if reason == f"replaced by {o.job_id}")
        assert other.is_after(jobs[n])
    last = max(jobs, key=lambda n: (jobs[n].at, jobs[n].job_id))
    assert last not in left_out
