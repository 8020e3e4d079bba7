"""Waiting for jobs: results, changes and progress, over one connection of a process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import leveret
from leveret import Publisher, results
from leveret.errors import (
    ConfigurationError,
    JobCancelled,
    JobExpired,
    JobFailed,
    LeveretError,
    ResultLost,
    ResultTimeout,
    TooManyWaiters,
)
from leveret.ledger.state import State
from leveret.message import new_id
from leveret.results import AsyncWatcher, ResultStore, Watcher
from leveret.store import engine
from leveret.store.migrate import upgrade
from tests.support.databases import temporary_database
from tests.support.ledgers import Ledger
from tests.support.proxies import TcpProxy
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def ledger_database(checkout):
    """Return the URL of a database of these tests alone: they count who waits in it."""
    with temporary_database(checkout, "results") as url:
        owner = engine(url, pool_size=1)
        upgrade(owner)
        owner.dispose()
        yield url


@pytest.fixture
def ledger(ledger_database):
    """Return the ledger's rows, to be written as a recorder would."""
    with Ledger(ledger_database) as found:
        yield found


@pytest.fixture
def watcher(ledger_database):
    """Return a watcher of this test."""
    with Watcher(ledger_database) as made:
        yield made


# ---------------------------------------------------------------------------------------- results


def test_a_result_that_is_there_is_returned_at_once(ledger, watcher):
    """Whatever JSON can write."""
    job_id = ledger.write(new_id(), "succeeded", result=b'{"rows": [1, 2.5, null, "\xc3\xa9"]}')
    assert watcher.result(job_id, timeout=30) == {"rows": [1, 2.5, None, "é"]}
    nothing = ledger.write(new_id(), "succeeded")
    assert watcher.result(nothing, timeout=30) is None


def test_a_result_is_returned_when_it_comes(ledger, watcher):
    """The wait begins before the ledger knows the job, and goes on through its states."""
    job_id = new_id()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(watcher.result, job_id, 60)
        ledger.wait_watched(job_id)
        for state in ("queued", "running", "retrying"):
            ledger.write(job_id, state)
        assert not waiting.done()
        ledger.write(job_id, "succeeded", result=b"42")
        assert waiting.result(30) == 42


@pytest.mark.parametrize(
    ("state", "columns", "error", "said"),
    [
        (
            "dead",
            {"reason": "exhausted", "error_type": "ValueError", "error": "no", "attempt": 6},
            JobFailed,
            r"is dead \(exhausted\) after attempt 6: ValueError: no",
        ),
        ("dead", {}, JobFailed, "no reason is known"),
        ("cancelled", {}, JobCancelled, "was cancelled before it started"),
        ("expired", {"error": "too late"}, JobExpired, "has expired: too late"),
        ("succeeded", {"result_lost": "it has 1 bytes"}, ResultLost, "not kept: it has 1 bytes"),
        ("succeeded", {"result_ref": "a/0-1.json"}, ResultLost, "LEVERET_RESULT_STORE"),
    ],
)
def test_a_job_without_a_result_says_why(ledger, watcher, *, state, columns, error, said):
    """Each end has its own exception, which carries the job's id."""
    job_id = ledger.write(new_id(), state, **columns)
    with pytest.raises(error, match=said) as caught:
        watcher.result(job_id, timeout=30)
    assert caught.value.job_id == job_id
    if isinstance(caught.value, JobFailed):
        assert caught.value.reason == columns.get("reason")


def test_a_wait_that_is_too_long_ends_with_where_the_job_stands(ledger, watcher):
    """A timeout says nothing about the job, which goes on."""
    with pytest.raises(ResultTimeout, match=r"within 0.2 s: the ledger does not know it yet"):
        watcher.result(new_id(), timeout=0.2)
    job_id = ledger.write(new_id(), "running")
    with pytest.raises(TimeoutError, match="it is running"):
        watcher.result(job_id, timeout=1)
    assert watcher.wait(job_id, timeout=0.5).state is State.RUNNING


def test_a_foreign_id_is_found_by_the_time_at_which_it_was_first_seen(ledger, watcher):
    """An id that is no UUIDv7 does not tell its partition."""
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(watcher.result, "order/4711 é", 60)
        ledger.wait_watched("order/4711 é")
        ledger.write("order/4711 é", "succeeded", result=b"true")
        assert waiting.result(30) is True


def test_what_cannot_be_a_job_is_refused(watcher):
    """One bad id must not spoil the statement that serves all."""
    for wrong in ("", "x" * 256, "a\0b", "\ud800"):
        with pytest.raises(ValueError, match="cannot be the id"):
            watcher.result(wrong, timeout=5)


def test_a_replayed_job_is_waited_for_again(ledger, watcher):
    """A job that was dead and is queued again has no result yet."""
    job_id = ledger.write(new_id(), "queued", run=1)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(watcher.result, job_id, 60)
        ledger.wait_watched(job_id)
        ledger.write(job_id, "succeeded", run=1, result=b'"again"')
        assert waiting.result(30) == "again"


# ----------------------------------------------------------------------------------- many waiters


def test_a_thousand_waiters_are_one_connection_and_a_few_statements(ledger, ledger_database):
    """Neither connections nor statements grow with those who wait."""
    ids = [new_id() for _ in range(1000)]

    others = ledger.connections("leveret watcher")  # an API of this test process has one

    async def scenario() -> tuple[int, int, int]:
        watcher = AsyncWatcher(ledger_database)
        await watcher.start()
        waits = [asyncio.create_task(watcher.wait(job_id, timeout=60)) for job_id in ids]
        await asyncio.to_thread(ledger.wait_watched, *ids)
        connections = await asyncio.to_thread(ledger.connections, "leveret watcher")
        await asyncio.to_thread(ledger.write_many, ids, "succeeded")
        seen = await asyncio.gather(*waits)
        assert {standing.job_id for standing in seen} == set(ids)
        statements = watcher.statements
        await watcher.stop()
        return len(connections - others), statements, watcher.waiters

    connections, statements, left = asyncio.run(scenario())
    assert (connections, left) == (1, 0)
    assert statements < 100
    assert ledger.watched().isdisjoint(ids)


def test_waiting_asks_nothing_but_now_and_then(ledger, ledger_database):
    """Between two fallback looks, the database is asked nothing, whatever it notifies of others."""
    ids = [ledger.write(new_id(), "running") for _ in range(20)]

    async def scenario() -> int:
        watcher = AsyncWatcher(ledger_database, fallback_seconds=3600)
        await watcher.start()
        waits = [asyncio.create_task(watcher.wait(job_id)) for job_id in ids]
        await asyncio.to_thread(ledger.wait_watched, *ids)
        await asyncio.sleep(1.0)  # the second look is over
        before = watcher.statements
        for _ in range(5):
            await asyncio.to_thread(ledger.write, new_id(), "queued")
        await asyncio.sleep(1.0)
        asked = watcher.statements - before
        await asyncio.to_thread(ledger.write_many, ids, "succeeded")
        await asyncio.wait_for(asyncio.gather(*waits), 30)
        await watcher.stop()
        return asked

    assert asyncio.run(scenario()) == 0


def test_waiters_are_bounded(ledger_database):
    """One more than the bound is refused, and room is made by those who leave."""

    async def scenario() -> None:
        watcher = AsyncWatcher(ledger_database, max_waiters=2)
        await watcher.start()
        job_id = new_id()
        async with watcher.watching(job_id), watcher.watching(new_id()):
            with pytest.raises(TooManyWaiters, match="2 are waiting"):
                async with watcher.watching(job_id):
                    pass
        assert await watcher.wait(job_id, timeout=0.1) is None
        await watcher.stop()

    asyncio.run(scenario())


def test_changes_of_a_job_are_followed(ledger, ledger_database):
    """Each change is told once, to each who follows; what is no change is not told."""
    job_id = ledger.write(new_id(), "queued")

    async def follow(watcher: AsyncWatcher) -> list[tuple[State, float | None]]:
        seen = []
        async with watcher.watching(job_id) as changes:
            async for standing in changes:
                seen.append((standing.state, standing.progress))
                if standing.state is State.QUEUED:
                    await asyncio.to_thread(ledger.write, job_id, "queued")  # nothing new
                    await asyncio.to_thread(ledger.write, job_id, "running")
                elif standing.progress is None and standing.state is State.RUNNING:
                    await asyncio.to_thread(ledger.write, job_id, "running", progress=0.5)
                elif standing.state is State.RUNNING:
                    await asyncio.to_thread(ledger.write, job_id, "succeeded", progress=0.5)
                else:
                    return seen
        return seen

    async def scenario() -> list[list[tuple[State, float | None]]]:
        watcher = AsyncWatcher(ledger_database)
        await watcher.start()
        found = await asyncio.wait_for(follow(watcher), 60)
        again = await asyncio.wait_for(follow(watcher), 60)
        await watcher.stop()
        return [found, again]

    followed, late = asyncio.run(scenario())
    assert followed == [
        (State.QUEUED, None),
        (State.RUNNING, None),
        (State.RUNNING, 0.5),
        (State.SUCCEEDED, 0.5),
    ]
    assert late == [(State.SUCCEEDED, 0.5)]


# ----------------------------------------------------------------------------------- things break


def test_who_waits_goes_on_waiting_when_the_connection_is_cut(ledger, ledger_database):
    """It comes back, and looks at what changed meanwhile."""
    ids = [new_id() for _ in range(3)]
    with (
        TcpProxy.before(ledger_database) as proxy,
        ThreadPoolExecutor() as pool,
        Watcher(proxy.through(ledger_database)) as watcher,
    ):
        waits = [pool.submit(watcher.result, job_id, 90) for job_id in ids]
        ledger.wait_watched(*ids)
        proxy.cut()
        ledger.write(ids[0], "succeeded", result=b"0")
        assert waits[0].result(30) == 0
        proxy.refuse()
        ledger.write(ids[1], "succeeded", result=b"1")
        proxy.resume()
        assert waits[1].result(30) == 1
        proxy.cut()
        wait_until(lambda: proxy.connections, timeout=30, what="it is back")
        ledger.write(ids[2], "succeeded", result=b"2")
        assert waits[2].result(30) == 2


def test_a_connection_that_is_silent_is_given_up(ledger, ledger_database, monkeypatch):
    """A peer may be gone without a word; who waits does not wait for it."""
    monkeypatch.setattr("leveret.results.watcher._STATEMENT_SECONDS", 0.5)
    job_id = new_id()
    with (
        TcpProxy.before(ledger_database) as proxy,
        ThreadPoolExecutor() as pool,
        Watcher(proxy.through(ledger_database), fallback_seconds=0.3) as watcher,
    ):
        waiting = pool.submit(watcher.result, job_id, 90)
        ledger.wait_watched(job_id)
        proxy.stall()
        before = proxy.accepted
        wait_until(lambda: proxy.accepted > before, timeout=60, what="it tries another one")
        ledger.write(job_id, "succeeded", result=b"1")
        proxy.resume()
        assert waiting.result(60) == 1


def test_a_child_after_a_fork_waits_over_a_connection_of_its_own(ledger, ledger_database):
    """And its parent goes on with its own."""
    done, later = ledger.write(new_id(), "succeeded", result=b"1"), new_id()
    program = f"""
import os
from leveret import results
assert results.result({done!r}, timeout=60) == 1
child = os.fork()
if child == 0:
    assert results.result({done!r}, timeout=60) == 1
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("forked", flush=True)
assert results.result({later!r}, timeout=60) == 2
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={"LEVERET_DATABASE_URL": ledger_database},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "forked\n"
        ledger.write(later, "succeeded", result=b"2")
        assert process.wait(60) == 0


def test_a_watch_that_is_lost_delays_only_until_the_fallback_look(ledger, ledger_database):
    """The table is not logged: a crash of the database empties it."""
    job_id = new_id()
    with Watcher(ledger_database, fallback_seconds=0.5) as watcher, ThreadPoolExecutor() as pool:
        waiting = pool.submit(watcher.result, job_id, 60)
        ledger.wait_watched(job_id)
        ledger.forget_watches()
        ledger.write(job_id, "succeeded", result=b"1")
        assert waiting.result(30) == 1


def test_a_database_without_the_ledger_is_told_to_whoever_waits(fresh_database):
    """Waiting for ever would not help."""
    with (
        Watcher(fresh_database) as watcher,
        pytest.raises(ConfigurationError, match="run `leveret migrate`"),
    ):
        watcher.result(new_id(), timeout=30)


def test_closing_ends_all_waits(ledger_database):
    """Nobody is left behind, and closing twice does no harm."""
    watcher = Watcher(ledger_database)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(watcher.result, new_id())
        wait_until(lambda: watcher._watcher.waiters, timeout=30)
        watcher.close()
        with pytest.raises(LeveretError, match="stops waiting"):
            waiting.result(30)
    watcher.close()
    with pytest.raises(LeveretError, match="closed"):
        watcher.result(new_id())


# ------------------------------------------------------------------------------------ the receipt


@pytest.fixture
def configured(ledger_database, monkeypatch):
    """Let the process's watcher find the database."""
    monkeypatch.setenv("LEVERET_DATABASE_URL", ledger_database)
    results.close()
    yield
    results.close()


def test_a_receipt_gives_the_result(configured, ledger, vhost):
    """The confirm first, then the ledger; in threads and in asyncio."""
    with Publisher(vhost.url("publisher")) as publisher:
        receipt = publisher.publish("probe.run", {"n": 1})
        ledger.write(receipt.job_id, "succeeded", result=b'{"n": 1}')
        assert receipt.result(timeout=60) == {"n": 1}

        async def later() -> object:
            receipt = publisher.publish("probe.run", {"n": 2})
            await asyncio.to_thread(ledger.write, receipt.job_id, "succeeded", result=b'{"n": 2}')
            return await receipt.aresult(timeout=60)

        assert asyncio.run(later()) == {"n": 2}
        failed = publisher.publish("probe.run", {})
        ledger.write(failed.job_id, "dead", reason="refused")
        with pytest.raises(JobFailed, match="refused"):
            failed.result(timeout=60)
    assert results.wait(failed.job_id, timeout=30).state is State.DEAD


def test_a_receipt_without_a_database_says_what_is_missing(vhost, monkeypatch):
    """Before it waits for anything."""
    monkeypatch.delenv("LEVERET_DATABASE_URL", raising=False)
    results.close()
    with Publisher(vhost.url("publisher")) as publisher:
        receipt = publisher.publish("probe.run", {})
        with pytest.raises(ConfigurationError, match=r"LEVERET_DATABASE_URL is not set"):
            receipt.result(timeout=5)
        receipt.wait()


# -------------------------------------------------------------------------------------- the store


def test_a_large_result_goes_through_the_store(worker, ledger, ledger_database, tmp_path):
    """The record carries its reference, by which it is read; an escaping reference is refused."""
    store = ResultStore(f"file://{tmp_path}/results")

    @worker.actor("big.make", queue="default")
    def make(n: int) -> str:
        return "x" * n

    worker.start(results=store)
    small, large = (worker.send("big.make", {"n": n}) for n in (10, 100_000))
    assert worker.records(small, "succeeded")[-1]["result"] == "x" * 10
    record = worker.records(large, "succeeded")[-1]
    assert "result" not in record
    reference = record["result_ref"]
    assert reference == f"{large}/0-1.json"
    assert json.loads((tmp_path / "results" / reference).read_text()) == "x" * 100_000

    ledger.write(large, "succeeded", result_ref=reference)
    evil = ledger.write(new_id(), "succeeded", result_ref="../../etc/passwd")
    with Watcher(ledger_database, store=store) as watcher:
        assert watcher.result(large, timeout=30) == "x" * 100_000
        assert asyncio.run(watcher.aresult(large, timeout=30)) == "x" * 100_000
        with pytest.raises(ResultLost, match="no reference"):
            watcher.result(evil, timeout=30)
        (tmp_path / "results" / reference).unlink()
        with pytest.raises(ResultLost, match="cannot be read"):
            watcher.result(large, timeout=30)


def test_a_store_that_fails_loses_the_result_and_not_the_job(worker, tmp_path):
    """The job has done its work; the record says what became of the result."""
    (tmp_path / "results").write_text("a file where the folder should be")

    @worker.actor("big.make", queue="default")
    def make() -> str:
        return "x" * 100_000

    worker.start(results=ResultStore(f"file://{tmp_path}/results"))
    record = worker.records(worker.send("big.make"), "succeeded")[-1]
    assert "does not take it" in record["result_lost"]


def test_ids_of_strangers_are_folders_inside_the_store(tmp_path):
    """A job's id is any text; what is a path in it leads nowhere."""
    store = ResultStore(f"file://{tmp_path}/results")
    references = [
        store.put(job_id, 0, 1, b"1") for job_id in ("..", ".", "../../up", "/etc", "é" * 127)
    ]
    assert len(set(references)) == 5
    assert all(store.get(reference) == b"1" for reference in references)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    with pytest.raises(ConfigurationError, match="LEVERET_RESULT_STORE"):
        ResultStore("nosuch://bucket/x")


# --------------------------------------------------------------------------------------- progress


def test_progress_is_told_while_the_job_runs_and_the_last_always(worker):
    """From actors and coroutines, from threads of theirs; a storm of reports becomes a few."""
    go = threading.Event()

    @worker.actor("slow.count", queue="default")
    def count() -> None:
        job = leveret.current_job()
        job.progress(0.25, "a quarter\0 \ud800")
        assert go.wait(60)
        for number in range(10_000):
            job.progress(number / 10_000, f"row {number}")
        with ThreadPoolExecutor() as pool:
            pool.submit(job.progress, 7, "done").result()

    @worker.actor("slow.walk", queue="default")
    async def walk() -> None:
        leveret.current_job().progress(-1)
        await asyncio.sleep(0)

    @worker.actor("slow.wrong", queue="default", max_retries=0)
    def wrong() -> None:
        leveret.current_job().progress(float("nan"))

    worker.start()
    job_id = worker.send("slow.count")
    first = worker.records(job_id, "progress")[-1]
    assert (first["progress"], first["note"]) == (0.25, "a quarter \\ud800")
    go.set()
    told = [r for r in worker.records(job_id, "succeeded") if r["event"] == "progress"]
    assert (told[-1]["progress"], told[-1]["note"]) == (1.0, "done")
    assert len(told) < 1000
    assert [r["event"] for r in worker.records(job_id)].index("succeeded") == len(
        worker.records(job_id)
    ) - 1
    walked = worker.records(worker.send("slow.walk"), "succeeded")
    assert [r["progress"] for r in walked if r["event"] == "progress"] == [0.0]
    refused = worker.records(worker.send("slow.wrong"), "dead")[-1]
    assert "not nan" in refused["error"]["message"]


def test_a_watch_of_a_killed_process_is_removed_by_others(ledger, ledger_database, monkeypatch):
    """It runs out, and whoever renews next sweeps it."""
    monkeypatch.setattr("leveret.results.watcher._RENEW_SECONDS", 0.2)
    with psycopg.connect(ledger_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO watches VALUES ('left', 'somebody', now() - interval '1 second')"
        )
    with Watcher(ledger_database) as watcher, ThreadPoolExecutor() as pool:
        job_id = new_id()
        waiting = pool.submit(watcher.result, job_id, 60)
        wait_until(lambda: ledger.watched() == {job_id}, timeout=30, what="only its own is left")
        began = time.monotonic()
        ledger.write(job_id, "succeeded")
        assert waiting.result(30) is None
        assert time.monotonic() - began < 30
