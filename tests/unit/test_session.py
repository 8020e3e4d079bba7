"""Acknowledgements against a model of RabbitMQ's rule."""

from __future__ import annotations

import pika
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from leveret.worker.delivery import Delivery, Session


class Channel:
    """What RabbitMQ does with acks: one that names no outstanding tag closes the channel."""

    def __init__(self):
        self.outstanding = set()
        self.acked = []
        self.rejected = []
        self.last = 0
        self.is_open = True

    def deliver(self):
        """Hand out the next tag."""
        self.last += 1
        self.outstanding.add(self.last)
        return self.last

    def basic_ack(self, tag, multiple=False):
        """Settle the tag, or all outstanding ones up to it."""
        assert tag in self.outstanding, f"unknown delivery tag {tag}: the channel is closed"
        settled = {t for t in self.outstanding if t <= tag} if multiple else {tag}
        self.outstanding -= settled
        self.acked += sorted(settled)

    def basic_nack(self, tag, requeue):
        """Give one tag back."""
        assert tag in self.outstanding, f"unknown delivery tag {tag}: the channel is closed"
        self.outstanding.discard(tag)
        self.rejected.append(tag)


class Settling(RuleBasedStateMachine):
    """Deliveries are settled in any order, between flushes at any time."""

    def __init__(self):
        super().__init__()
        self.channel = Channel()
        self.session = Session(self.channel, "default", "leveret.default")
        self.running = []
        self.settled = set()
        self.given_back = set()
        self.over = False

    @rule(count=st.integers(1, 5))
    def deliver(self, count):
        """Deliver some more."""
        for _ in range(0 if self.over else count):
            tag = self.channel.deliver()
            self.session.held[tag] = Delivery(
                self.session, tag, "default.a", pika.BasicProperties(), b""
            )
            self.running.append(tag)

    @rule(data=st.data(), requeue=st.booleans(), reject=st.booleans())
    def settle(self, data, requeue, reject):
        """End some job: its tag is acked with the next flush, or given back."""
        if not self.running:
            return
        tag = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if reject:
            self.session.reject(tag, requeue=requeue)
            if not self.over:
                self.given_back.add(tag)
        else:
            self.session.ready(tag)
            self.settled.add(tag)

    @rule()
    def flush(self):
        """Commit a group, or let the linger time be over."""
        self.session.flush()

    @rule(lost=st.sampled_from([False] * 9 + [True]))
    def lose(self, lost):
        """Close the channel, now and then."""
        if lost:
            self.over = self.session.is_over = True
            self.channel.outstanding = set()

    @invariant()
    def nothing_unsettled_is_acked(self):
        """And what is acked is acked once."""
        assert set(self.channel.acked) <= self.settled
        assert set(self.channel.rejected) == self.given_back
        assert len(set(self.channel.acked)) == len(self.channel.acked)
        assert not set(self.channel.acked) & self.given_back

    @invariant()
    def what_is_held_is_what_runs(self):
        """Keep no tag that is settled."""
        if not self.over:
            assert set(self.session.held) == set(self.running)

    def teardown(self):
        """Two flushes later, everything that may be acked is, and nothing is owed."""
        self.session.flush()
        self.session.flush()
        if not self.over:
            assert set(self.channel.acked) == self.settled
            assert self.channel.outstanding == set(self.running)
            assert not self.session.owes


Settling.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestSettling = Settling.TestCase


def test_an_unbroken_run_of_tags_is_one_ack():
    """However many they are."""
    calls = []
    channel = Channel()
    session = Session(channel, "default", "leveret.default")
    for _ in range(256):
        session.ready(channel.deliver())
    ack = channel.basic_ack
    channel.basic_ack = lambda tag, multiple=False: (calls.append(tag), ack(tag, multiple))
    session.flush()
    assert calls == [256]


def test_when_a_gap_has_closed_acks_are_few_again():
    """Tags that were acked alone above it do not hold the run up."""
    calls = []
    channel = Channel()
    session = Session(channel, "default", "leveret.default")
    ack = channel.basic_ack
    channel.basic_ack = lambda tag, multiple=False: (
        calls.append((tag, multiple)),
        ack(tag, multiple),
    )
    for _ in range(5):
        channel.deliver()
    session.ready(2)
    session.ready(3)
    session.flush()
    assert calls == []
    session.flush()
    assert sorted(calls) == [(2, False), (3, False)]
    session.ready(1)
    session.flush()
    session.ready(4)
    session.ready(5)
    session.flush()
    assert calls[2:] == [(1, False), (5, True)]
    assert not session.owes


def test_a_session_that_is_over_says_nothing():
    """Its tags mean something else by now."""
    channel = Channel()
    session = Session(channel, "default", "leveret.default")
    first, second = channel.deliver(), channel.deliver()
    session.ready(first)
    session.is_over = True
    session.flush()
    session.reject(second, requeue=True)
    assert (channel.acked, channel.rejected) == ([], [])
