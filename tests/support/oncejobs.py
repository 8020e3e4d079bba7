"""Actors whose effects are in a database, and shall be there once."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from sqlalchemy import text

import leveret
from tests.support.faultjobs import journal

QUICK = leveret.Backoff(base=timedelta(seconds=0.3), jitter=False)
TABLES = """
CREATE TABLE account (name int PRIMARY KEY, balance int NOT NULL DEFAULT 0);
CREATE TABLE effect (n int NOT NULL, job_id text NOT NULL);
"""
_ADD = text("UPDATE account SET balance = balance + :n WHERE name = :name")
_NOTE = text("INSERT INTO effect VALUES (:n, :job)")


def values(n: int) -> dict[str, object]:
    """Return what both statements need."""
    return {"n": n, "name": n % 10, "job": leveret.current_job().id}


@leveret.actor("once.add", once=True, backoff=QUICK)
def add(n: int) -> int:
    """Add ``n`` to an account; some fail the first time, in the transaction or after it."""
    attempt = leveret.current_job().attempt
    journal().write("start")
    with leveret.once_session() as session:
        session.execute(_ADD, values(n))
        session.execute(_NOTE, values(n))
        time.sleep(0.02)
        if n % 10 == 3 and attempt == 1:
            raise ConnectionError("before the commit")
    if n % 10 == 7:
        raise ConnectionError("after the commit")
    return n


@leveret.actor("once.add_async", backoff=QUICK)
async def add_async(n: int) -> int:
    """Do the same in a coroutine; what makes it once is the job's key."""
    journal().write("start")
    async with leveret.once_connection() as connection:
        await connection.execute(_ADD, values(n))
        await connection.execute(_NOTE, values(n))
        await asyncio.sleep(0.02)
    return n


@leveret.actor("once.sleep", once=True, backoff=QUICK)
def sleep(n: int) -> int:
    """Wait at a gate within the transaction, the first time; the second time there is none."""
    journal().write("start")
    with leveret.once_session() as session:
        session.execute(_NOTE, values(n))
        if not journal().entries("hold"):
            journal().write("hold")
            journal().wait_at_gate("gate")
            journal().write("woken")
    journal().write("end")
    return n


#: Which queue the topology binds each actor to.
ACTORS = {actor.actor_name: actor.queue_name for actor in (add, add_async, sleep)}
