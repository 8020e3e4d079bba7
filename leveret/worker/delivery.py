"""One delivery, and the session that it belongs to.

A delivery tag means something only on the channel that brought it. A `Session` is one such
channel's life: when it is over, its deliveries can no longer be settled, by anybody, ever, and the
broker delivers them again. That is why a tag is never kept without its session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.broker import MessageProxy

from leveret.errors import LeveretError
from leveret.message import PREFIX

if TYPE_CHECKING:
    import pika

    from leveret.context import Report, Run
    from leveret.message import Job
    from leveret.worker.spans import Attempt

__all__ = ["KILLS_HEADER", "Delivery", "Session"]

#: Deaths of workers that a copy's original was charged with; a run that ended clears them.
KILLS_HEADER = f"{PREFIX}kills"


class Session:
    """The life of one consuming channel. For the IO thread, except `is_over`."""

    __slots__ = (
        "_gone",
        "_passed_over",
        "_ready",
        "_top",
        "channel",
        "held",
        "is_over",
        "queue",
        "source",
    )

    def __init__(self, channel: Any, queue: str, source: str) -> None:
        self.channel = channel
        #: The pool's queue, such as ``default``.
        self.queue = queue
        #: The AMQP queue that is consumed.
        self.source = source
        #: True once its deliveries cannot be settled any more.
        self.is_over = False
        #: Deliveries that are not settled yet, by tag.
        self.held: dict[int, Delivery] = {}
        self._top = 0  # every tag up to here is settled with the broker
        self._gone: set[int] = set()  # tags above it that are, too
        self._ready: set[int] = set()  # tags that may be acked
        self._passed_over: set[int] = set()  # those of them that were not acked last time

    @property
    def owes(self) -> bool:
        """Whether there are tags that may be acked and are not."""
        return bool(self._ready) and not self.is_over

    def ready(self, tag: int) -> None:
        """Let ``tag`` be acked by the next `flush`, or the one after."""
        self._ready.add(tag)
        self.held.pop(tag, None)

    def reject(self, tag: int, *, requeue: bool) -> None:
        """Give ``tag`` back at once: to its queue, or to the queue's dead-letter exchange.

        RabbitMQ 4.3 charges a message (``x-delivery-count``) for a ``basic.reject`` that requeues
        it, and not for a ``basic.nack``; before, both do.
        """
        if not self.is_over and self.channel.is_open:
            self.channel.basic_nack(tag, requeue=requeue)
            self._gone.add(tag)
            self.held.pop(tag, None)

    def flush(self) -> None:
        """Ack what may be acked, with as few frames as possible.

        An unbroken run of tags from the lowest is one ``multiple`` ack. A tag above a gap (some
        job that still runs holds it open) is passed over once, since most gaps close by themselves,
        and then acked alone. An ack names a tag that is still open: the broker closes the channel
        over any other.
        """
        if self.is_over or not self._ready or not self.channel.is_open:
            return  # on a channel that is being closed, everything goes back
        top, last, count = self._top, 0, 0
        while True:
            tag = top + 1
            if tag in self._ready:
                self._ready.discard(tag)
                last, count = tag, count + 1
            elif tag in self._gone:
                self._gone.discard(tag)
            else:
                break
            top = tag
        self._top = top
        if last:
            self.channel.basic_ack(last, multiple=count > 1)
        alone = self._ready & self._passed_over
        for tag in alone:
            self.channel.basic_ack(tag)
        self._gone |= alone
        self._ready -= alone
        self._passed_over = set(self._ready)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


class Delivery(MessageProxy):
    """A message on its way through the worker.

    To Dramatiq's middleware it is the message proxy that hooks are called with; the `dramatiq`
    message behind it is only made when a hook looks at it.
    """

    def __init__(
        self,
        session: Session,
        tag: int,
        routing_key: str | bytes,
        properties: pika.BasicProperties,
        body: bytes,
        *,
        redelivered: bool = False,
    ) -> None:
        self.session = session
        self.tag = tag
        #: As text: what is not UTF-8 in it is escaped.
        self.routing_key = (
            routing_key
            if isinstance(routing_key, str)
            else routing_key.decode(errors="backslashreplace")
        )
        self.properties = properties
        self.body = body
        self._redelivered = redelivered
        #: The job, once it is read.
        self.job: Job | None = None
        #: Arguments as the actor gets them.
        self.positional: list[Any] = []
        self.named: dict[str, Any] = {}
        #: When its run began and ended (seconds since 1970).
        self.started_at: float | None = None
        self.ended_at: float | None = None
        #: The same message, delivered again while this one was running.
        self.successor: Delivery | None = None
        #: Whether a started record has gone out.
        self.announced = False
        #: Whether the job has, or may have, a checkpoint.
        self.noted = False
        #: Its run, while there is one and after.
        self.run: Run | None = None
        #: The spans of that run, if it is traced.
        self.spans: Attempt | None = None
        self.failed = False
        self._exception: BaseException | None = None
        self._proxied: dramatiq.Message[Any] | None = None

    @property
    def unsuccessful(self) -> int:
        """How often the broker has delivered it before.

        Only a redelivery's count is the broker's own; on a first delivery, a publisher wrote it.
        """
        if not self._redelivered or not self.properties.headers:
            return 0
        return _count(self.properties.headers.get("x-delivery-count"))

    @property
    def inherited_kills(self) -> int:
        """How many deaths an earlier copy of it was charged with."""
        headers = self.properties.headers
        return _count(headers.get(KILLS_HEADER)) if headers else 0

    @property
    def label(self) -> str:
        """How logs name the job: its id, as far as it is known."""
        if self.job is not None:
            return self.job.id
        value = self.properties.message_id
        return value if isinstance(value, str) and value else "(no id)"

    @property
    def latest(self) -> Delivery:
        """The last of the deliveries of this message that came while it was running."""
        delivery = self
        while delivery.successor is not None:
            delivery = delivery.successor
        return delivery

    @property
    def has_id(self) -> bool:
        """Whether the message itself says which job it is."""
        value = self.properties.message_id
        return isinstance(value, str) and bool(value)

    def take_over(self, other: Delivery) -> None:
        """Become what follows from the run of ``other``, the same message delivered before."""
        self.job = other.job
        self.started_at = other.started_at
        self.ended_at = other.ended_at
        self.run = other.run
        self.spans = other.spans

    def news(self) -> Report | None:
        """Return what its actor has reported since it was last asked for. For the IO thread."""
        run = self.run
        if run is None or run.reported is run.told:
            return None
        run.told = run.reported
        return run.told

    @property
    def _message(self) -> dramatiq.Message[Any]:  # type: ignore[override]
        if self._proxied is None:
            if self.job is None:
                raise LeveretError("the job of this delivery has not been read yet")
            self._proxied = dramatiq.Message(
                queue_name=self.session.queue,
                actor_name=self.job.actor,
                args=tuple(self.positional),
                kwargs=self.named,
                options={"attempt": self.job.attempt, "retries": self.job.attempt - 1},
                message_id=self.job.id,
            )
        return self._proxied
