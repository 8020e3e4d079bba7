"""Asking how long queues are: on a channel of its own, where a refusal ends nothing else."""

from __future__ import annotations

import logging
import threading

import pytest

from leveret import names
from leveret.amqp import IOThread, Lengths, Link
from tests.support.waiting import wait_until
from tests.support.workers import cut


class Asker:
    """A connection with a `Lengths`, and what it was told."""

    def __init__(self, url):
        self.told = {}
        self.connections = []
        self._io = IOThread("leveret-io-test")
        self._lengths = Lengths(self.told.__setitem__)
        self._link = Link(
            self._io, url, name="asker", on_up=self.connections.append, on_down=lambda _why: None
        )
        self._io.call_soon(self._link.open)
        wait_until(lambda: self.connections, what="it is connected")

    def ask(self, *queues):
        """Ask once."""
        self._io.call_soon(lambda: self._lengths.ask(self.connections[-1], queues))

    def hears(self, queue, messages):
        """Ask for a queue until the answer is ``messages``."""

        def heard():
            self.ask(queue)
            return self.told.get(queue) == messages

        wait_until(heard, what=f"{messages} in {queue}")

    def lose(self):
        """Lose the connection, and wait for the next one."""
        number = len(self.connections)
        self._io.call_soon(lambda: cut(self._link))
        wait_until(lambda: len(self.connections) > number, what="it is connected again")

    def close(self):
        """Disconnect, and wait for it."""
        closed = threading.Event()
        self._io.call_soon(lambda: self._link.close(closed.set))
        assert closed.wait(10)
        self._io.stop()


@pytest.fixture
def asker(worker):
    """Return one that has a recorder's rights."""
    asker = Asker(worker.vhost.url("recorder"))
    yield asker
    asker.close()


def test_it_is_told_what_waits(worker, asker):
    """Of each queue by its name, and anew each time."""
    asker.hears(names.UNROUTABLE, 0)
    worker.raw(b"{}", key="any.nobody.knows")
    asker.hears(names.UNROUTABLE, 1)
    asker.ask(names.LEDGER, names.UNROUTABLE)
    wait_until(lambda: asker.told.get(names.LEDGER), what="an answer for the second queue")


def test_a_refusal_is_one_line_and_ends_nothing_else(asker, caplog):
    """It asks on, and says again that it is refused only after it was told something."""
    caplog.set_level(logging.WARNING, "leveret.amqp")

    def lines():
        return [r.getMessage() for r in caplog.records if "how many messages wait" in r.msg]

    asker.ask("leveret.missing")
    wait_until(lines, what="a line about the refusal")
    asker.ask("leveret.missing")
    asker.hears(names.LEDGER, 0)
    assert len(lines()) == 1
    assert "leveret.missing" in lines()[0]
    asker.ask("leveret.missing")
    wait_until(lambda: len(lines()) == 2, what="another line")
    assert len(asker.connections) == 1
    assert asker.connections[0].is_open


def test_it_asks_over_the_next_connection(asker):
    """The channel of the one that is gone is not asked."""
    asker.hears(names.LEDGER, 0)
    asker.told.clear()
    asker.lose()
    asker.hears(names.LEDGER, 0)
