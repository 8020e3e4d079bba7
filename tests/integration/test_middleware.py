"""What Dramatiq's middleware is told by Leveret's worker."""

from __future__ import annotations

import dramatiq

from tests.support.waiting import wait_until
from tests.support.workers import Rig


class Acks(dramatiq.Middleware):
    """A middleware that counts how messages are settled."""

    def __init__(self):
        self.seen = []

    def after_ack(self, broker, message):
        """Note it."""
        self.seen.append(("ack", message.message_id))

    def after_nack(self, broker, message):
        """Note it."""
        self.seen.append(("nack", message.message_id))


def test_middleware_learns_how_a_message_was_settled(vhost):
    """When it is: a success is an ack, a dead letter is a nack, each once."""
    acks = Acks()
    rig = Rig(vhost, middleware=[acks])
    try:

        @rig.actor("settled.well")
        def well():
            pass

        @rig.actor("settled.badly", max_retries=0)
        def badly():
            raise ValueError("no")

        rig.start()
        good, bad = rig.send("settled.well"), rig.send("settled.badly")
        wait_until(lambda: len(acks.seen) == 2)
        assert sorted(acks.seen) == sorted([("ack", good), ("nack", bad)])
        rig.letters(1)
    finally:
        rig.close()
