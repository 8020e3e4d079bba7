"""One IO thread, connections that stay open, and publishing with pipelined confirms.

The layer between pika and what Leveret promises. It knows AMQP and nothing of jobs.
"""

from leveret.amqp.io import IOThread
from leveret.amqp.lengths import Lengths
from leveret.amqp.link import Link
from leveret.amqp.outbound import Outbound, Post

__all__ = ["IOThread", "Lengths", "Link", "Outbound", "Post"]
