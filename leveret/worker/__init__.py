"""The worker: takes deliveries from RabbitMQ, runs actors, and settles what became of them.

::

    intake ──► work queue ──► executor threads ──► settler ──► records, copies ──► acks
    (IO thread)               (one job each)       (IO thread)

One process has two connections, one to consume and one to publish, on one IO thread. Worker threads
run jobs and never wait for the broker. What a run leads to is a value (`leveret.outcome`), and the
settler acks a delivery only after what follows from that value is safe in the broker.

The processes around it (children, signals, health) are in `services.worker`.
"""

from leveret.worker.worker import Worker

__all__ = ["Worker"]
