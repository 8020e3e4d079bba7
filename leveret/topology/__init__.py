"""What stands in the broker: one table, who may touch it, and how it gets there.

Not here: the names alone (`leveret.names`) and the arithmetic of delays (`leveret.wheel`).
"""

from leveret.topology.check import Difference, compare, compare_permissions
from leveret.topology.declare import apply, prune
from leveret.topology.roles import ROLES, Role, roles_for
from leveret.topology.table import Topology, build

__all__ = [
    "ROLES",
    "Difference",
    "Role",
    "Topology",
    "apply",
    "build",
    "compare",
    "compare_permissions",
    "prune",
    "roles_for",
]
