"""Settlement: a delivery is acked only after what follows from it is safe in the broker.

A worker thread hands over a delivery and the outcome of its run, and goes on with its next job.
On the IO thread the settler then

1. takes all that has come in, as one *group*;
2. publishes what follows: one message with the outcome records of the whole group, and for each
   job that needs it a copy (retry, dead letter, suspect);
3. waits until the broker has confirmed all of it; meanwhile the next group comes together, so
   that groups are small when the worker is idle and large under load (group commit);
4. acks the deliveries of the group, as runs of delivery tags.

When a connection is lost in between, nothing needs to be undone. If it was the consuming one, the
session is over, the acks are void, and the broker delivers the jobs again; copies that have not
left yet are held back. A redelivery that comes to the same process is settled with the outcome that
is known already, instead of a second run. If it was the publishing one, what is
not confirmed is published again.

A copy that the broker refuses is never a reason to ack. A dead letter that cannot be published
(its headers are too large, say) leaves by the broker's own way, `basic.nack` into the queue's
dead-letter exchange; a retry is tried again until it is accepted, with the delivery held.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import pika

from leveret import names
from leveret.amqp import IOThread, Outbound, Post
from leveret.errors import PublishError, PublishRejected
from leveret.message import PERSISTENT, Reason, new_id
from leveret.outcome import (
    Cancelled,
    Dead,
    Expired,
    Outcome,
    Quarantine,
    Retry,
    Returned,
    Snooze,
    Succeeded,
)
from leveret.worker import copies
from leveret.worker.records import encode_group, encode_record, progress

if TYPE_CHECKING:
    from leveret.worker.delivery import Delivery, Session

__all__ = ["RECORDS_TYPE", "Settler"]

log = logging.getLogger("leveret.worker")

#: The ``type`` property of a message with outcome records.
RECORDS_TYPE = "leveret.records"
#: Deliveries in one group, at most.
_MAX_GROUP = 256
#: Groups that wait for confirms before a further one has to be full.
_MAX_OPEN_GROUPS = 2
#: Seconds until a refused copy is tried again.
_REFUSED_RETRY_SECONDS = 1.0
#: Seconds until tags above a gap are acked alone when no further group comes.
_LINGER_SECONDS = 0.02
#: The largest encoded header that fits into a frame of any broker, with room to spare.
_MAX_HEADER_BYTES = 100_000

Item = tuple["Delivery", Outcome]


class _Group:
    """Deliveries that are committed together."""

    __slots__ = ("items", "open_posts", "refused")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.open_posts = 0
        self.refused: dict[int, PublishError] = {}  # index of the item -> why


class _Record(Post):
    """The outcome records of a group."""

    __slots__ = ("group", "settler")
    mandatory = True

    def __init__(self, settler: Settler, group: _Group, body: bytes) -> None:
        super().__init__(
            names.OUTCOMES,
            "records",
            pika.BasicProperties(
                content_type="application/json",
                delivery_mode=PERSISTENT,
                message_id=new_id(),
                type=RECORDS_TYPE,
            ),
            body,
        )
        self.settler = settler
        self.group = group

    def confirmed(self) -> None:
        self.settler.post_settled(self.group)

    def failed(self, error: PublishError) -> None:
        self.group.refused.update(dict.fromkeys(range(len(self.group.items)), error))
        self.settler.post_settled(self.group)


class _Copy(Post):
    """What follows from one delivery of a group."""

    __slots__ = ("group", "index", "settler")
    mandatory = True

    def __init__(
        self,
        settler: Settler,
        group: _Group,
        index: int,
        address: tuple[str, str, pika.BasicProperties],
        body: bytes,
    ) -> None:
        super().__init__(*address, body)
        self.settler = settler
        self.group = group
        self.index = index

    def confirmed(self) -> None:
        self.settler.post_settled(self.group)

    def failed(self, error: PublishError) -> None:
        self.group.refused[self.index] = error
        self.settler.post_settled(self.group)

    def refresh(self) -> bool:
        if self.group.items[self.index][0].session.is_over:
            self.settler.post_settled(self.group)
            return False
        return True


class Settler:
    """Settles deliveries. `submit` may be called from any thread, the rest on the IO thread.

    ``on_settled(delivery, outcome)`` is called for each delivery when its fate is safe and its ack
    is on its way, ``on_void`` when the delivery could not be settled any more.
    """

    def __init__(
        self,
        io: IOThread,
        outbound: Outbound,
        worker_id: str,
        *,
        on_settled: Callable[[Delivery, Outcome], object],
        on_void: Callable[[Delivery, Outcome], object],
    ) -> None:
        self._io = io
        self._outbound = outbound
        self._worker_id = worker_id
        self._on_settled = on_settled
        self._on_void = on_void
        self._done: deque[Item] = deque()
        self._notes: list[bytes] = []
        self._awake = False
        self._open_groups = 0
        self._open_items = 0
        self._held = 0
        self._owing: set[Session] = set()
        self._lingering = False

    @property
    def pending(self) -> int:
        """Deliveries that are not settled yet, about; exact on the IO thread."""
        return len(self._done) + self._open_items + self._held + len(self._owing)

    def submit(self, delivery: Delivery, outcome: Outcome) -> None:
        """Hand over a delivery whose run has ended. Thread-safe, returns at once."""
        self._done.append((delivery, outcome))
        if not self._awake:
            self._awake = True
            self._io.call_soon(self._commit)

    def note(self, record: bytes) -> None:
        """Send a record that no ack waits for, with the next group or by itself."""
        self._notes.append(record)
        if not self._awake:
            self._awake = True
            self._io.call_soon(self._commit)

    # -------------------------------------------------------------------------------- the commit

    def _commit(self) -> None:
        self._awake = False
        while self._done or self._notes:
            if self._open_groups >= _MAX_OPEN_GROUPS and len(self._done) < _MAX_GROUP:
                return  # the next confirm comes back here
            items: list[Item] = []
            while self._done and len(items) < _MAX_GROUP:
                item = self._valid(self._done.popleft())
                if item is not None:
                    items.append(item)
            self._publish(_Group(items))

    def _valid(self, item: Item) -> Item | None:
        """Point the item at a delivery that can still be acked, if there is one."""
        delivery, outcome = item
        while delivery.session.is_over and delivery.successor is not None:
            delivery.successor.take_over(delivery)
            delivery = delivery.successor
        if delivery.session.is_over:
            self._on_void(delivery, outcome)
            return None
        return delivery, outcome

    def _publish(self, group: _Group) -> None:
        now = time.time()
        notes, self._notes = self._notes, []
        addresses = [self._follow_up(group, index) for index in range(len(group.items))]
        for delivery, _ in group.items:
            report = delivery.news()
            if report is not None:
                notes.append(progress(delivery, report))
            if delivery.spans is not None:
                delivery.spans.published(now)
        records = notes + [
            encode_record(delivery, outcome, now)
            for delivery, outcome in group.items
            if not isinstance(outcome, Returned)
        ]
        posts: list[Post] = []
        if records:
            posts.append(_Record(self, group, encode_group(self._worker_id, records)))
        for index, address in enumerate(addresses):
            if address is not None:
                posts.append(_Copy(self, group, index, address, group.items[index][0].body))
        if not posts and not group.items:
            return
        group.open_posts = max(1, len(posts))
        self._open_groups += 1
        self._open_items += len(group.items)
        if posts:
            self._outbound.send_many(posts)
        else:
            self.post_settled(group)

    def _follow_up(self, group: _Group, index: int) -> tuple[str, str, pika.BasicProperties] | None:
        """Address the copy of an item; one that cannot be copied is dead, by the broker's way."""
        delivery, outcome = group.items[index]
        address = _address(delivery, outcome)
        if address is None or _header_bytes(address[2]) <= _MAX_HEADER_BYTES:
            return address
        error = PublishError("its headers cannot be copied: too large, or of types unknown here")
        group.refused[index] = error
        if not isinstance(outcome, Dead | Expired | Returned):
            group.items[index] = (delivery, Dead(Reason.BAD_HEADER, error))
        return None

    def post_settled(self, group: _Group) -> None:
        """Take note that the broker has answered for one post of a group."""
        group.open_posts -= 1
        if group.open_posts:
            return
        self._open_groups -= 1
        self._open_items -= len(group.items)
        sessions = set()
        for index, (delivery, outcome) in enumerate(group.items):
            session = delivery.session
            if session.is_over:
                self._on_void(delivery, outcome)
                continue
            error = group.refused.get(index)
            if error is None:
                session.ready(delivery.tag)
                sessions.add(session)
                self._on_settled(delivery, outcome)
            else:
                self._refused(delivery, outcome, error)
        self._flush(sessions)
        if self._done or self._notes:
            self._commit()

    def _refused(self, delivery: Delivery, outcome: Outcome, error: PublishError) -> None:
        if isinstance(outcome, Returned):
            delivery.session.reject(delivery.tag, requeue=True)
            return
        if isinstance(outcome, Dead | Expired):
            log.warning(
                "job %s is rejected into the dead-letter exchange, because its dead letter could "
                "not be published: %s",
                delivery.label,
                error,
            )
            delivery.session.reject(delivery.tag, requeue=False)
            self._on_settled(delivery, outcome)
            return
        if not isinstance(error, PublishRejected):  # no broker will ever take it
            self.submit(delivery, Dead(Reason.BAD_HEADER, error))
            return
        log.error(
            "job %s stays unacked, because what follows from its run was refused; trying again "
            "every %g s: %s",
            delivery.label,
            _REFUSED_RETRY_SECONDS,
            error,
        )
        self._held += 1

        def again() -> None:
            self._held -= 1
            self.submit(delivery, outcome)

        self._io.call_later(_REFUSED_RETRY_SECONDS, again)

    # -------------------------------------------------------------------------------------- acks

    def _flush(self, sessions: set[Session]) -> None:
        sessions |= self._owing
        connections = set()
        for session in sessions:
            if not session.is_over:
                connections.add(session.channel.connection)
        for connection in connections:
            connection.begin_burst()
        try:
            for session in sessions:
                session.flush()
        finally:
            for connection in connections:
                connection.end_burst()
        self._owing = {session for session in sessions if session.owes}
        if self._owing and not self._lingering:
            self._lingering = True
            self._io.call_later(_LINGER_SECONDS, self._after_linger)

    def _after_linger(self) -> None:
        self._lingering = False
        self._flush(set())


def _address(delivery: Delivery, outcome: Outcome) -> tuple[str, str, pika.BasicProperties] | None:
    match outcome:
        case Succeeded() | Cancelled():
            return None
        case Retry() | Snooze():
            return copies.delayed(delivery, outcome)
        case Dead() | Expired():
            return copies.dead_letter(delivery, outcome)
        case Quarantine():
            return copies.suspect(delivery, outcome)
        case Returned():
            return copies.returned(delivery, outcome)


def _header_bytes(properties: pika.BasicProperties) -> int:
    try:
        return sum(map(len, properties.encode()))
    except Exception:  # noqa: BLE001 - what cannot be encoded does not fit
        return _MAX_HEADER_BYTES + 1
