"""The worker pool: a launcher and its child processes.

``python -m services.worker --queues critical,default --threads 8 --processes 2``

The launcher starts the children, restarts one that dies (its siblings go on), drains all of them on
SIGTERM, and answers ``/livez``, ``/readyz`` and ``/metrics`` for all. It does not talk to RabbitMQ
and does not import any actor: what a child does is in `leveret.worker`.
"""
