"""A relay that kills itself at a named point of a batch, once for each folder.

``python -m tests.support.relaykills`` is ``python -m services.relay`` but for that; the point is in
`POINT`, the folder in `FOLDER`:

=============  ==========================================================================
``read``       the rows are locked; nothing has been published
``published``  the messages are on their way to the broker; no confirm has come
``confirmed``  the broker has them all; no row has been deleted
``deleted``    the rows are deleted; nothing has been committed
``committed``  the transaction has been committed
=============  ==========================================================================
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.relay.__main__ import main
from services.relay.carrier import Carrier
from services.relay.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.relay.carrier import Parcel
    from services.relay.table import Table

POINTS = ("read", "published", "confirmed", "deleted", "committed")
POINT = "RELAY_KILL_AT"
FOLDER = "RELAY_KILL_FOLDER"


def die_at(point: str) -> None:
    """Kill this process at its point, unless one has been killed in its folder before."""
    if os.environ.get(POINT) != point:
        return
    try:
        (Path(os.environ[FOLDER]) / point).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


_publish, _settle, _commit = Source.publish, Source.settle, Source.commit
_send_many = Carrier.send


def _dying_publish(self: Source, parcels: Sequence[Parcel]) -> None:
    die_at("read")
    _publish(self, parcels)
    die_at("confirmed")


def _dying_send(self: Carrier, parcels: Sequence[Parcel]) -> None:
    _send_many(self, parcels)
    die_at("published")


def _dying_settle(self: Source, table: Table, ids: Sequence[int]) -> None:
    _settle(self, table, ids)
    die_at("deleted")


def _dying_commit(self: Source, table: Table) -> None:
    _commit(self, table)
    die_at("committed")


def _install(target: Any, **methods: Any) -> None:
    for name, method in methods.items():
        setattr(target, name, method)


if __name__ == "__main__":
    _install(Source, publish=_dying_publish, settle=_dying_settle, commit=_dying_commit)
    _install(Carrier, send=_dying_send)
    sys.exit(main())
