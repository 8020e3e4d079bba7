"""A private RabbitMQ node and a private PostgreSQL of this checkout, without containers.

For development, the demonstration and tests; production runs on `k8s/`. `RabbitNode` and
`PostgresServer` are also what fault tests start, cut and kill.
"""

from compose.native.errors import StackError
from compose.native.install import ensure_apt
from compose.native.paths import Checkout
from compose.native.postgres import PostgresServer
from compose.native.rabbitmq import RabbitNode

__all__ = ["Checkout", "PostgresServer", "RabbitNode", "StackError", "ensure_apt"]
