"""What the demonstration publishes, and how each job has to end. Pure: no sockets here.

Every job's id begins with the run's name, so that nothing of an earlier run is taken for this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from leveret.message import Reason

__all__ = ["UNROUTABLE", "Kind", "Plan", "Planned"]

#: Why a job is a dead letter that no queue wanted.
UNROUTABLE = "unroutable"
#: The boxes that pictures are fitted into.
SIZES = ["800x500", "320x200"]
#: Receivers of webhooks, by the first report; later ones go to one that takes them, and `closed`.
RECEIVERS = ("steady", "deploying", "busy", "closed")
_MEASURES = ["count", "mean:dep_delay", "median:arr_delay", "p95:arr_delay", "sum:distance"]


class Kind(Enum):
    """A kind of work: what it is called, in short, and which client publishes it."""

    DAY = ("summaries of a day", "days", "SDK")
    YEAR = ("report of the year", "year", "SDK")
    REPORT = ("reports of a month", "months", "SDK")
    MAIL = ("mails", "mails", "SDK")
    WEBHOOK = ("webhooks", "webhooks", "SDK")
    IMAGE = ("pictures", "pictures", "plain AMQP")
    ODD = ("messages gone wrong", "wrong", "plain AMQP")

    @property
    def label(self) -> str:
        """How people call it."""
        return self.value[0]

    @property
    def word(self) -> str:
        """How it is called where room is short."""
        return self.value[1]

    @property
    def client(self) -> str:
        """Which client publishes it."""
        return self.value[2]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One job or message to publish."""

    id: str
    kind: Kind
    #: What happens here, for people.
    title: str
    #: The actor's name; for a message gone wrong, the one that it claims.
    actor: str
    arguments: Mapping[str, Any]
    #: The pool that runs it; None for the one that its actor is declared for.
    queue: str | None = None
    #: The routing key and the bytes, where a plain client decides them.
    key: str = ""
    body: bytes = b""
    #: The reason with which it has to be dead; None when it has to succeed.
    dead_as: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of one run."""

    #: The run's name.
    run: str
    #: The days of 2013, as (month, day), with the number of flights of each.
    days: Mapping[tuple[int, int], int]
    #: The pictures in the storage.
    pictures: Sequence[str]
    #: The URL of each receiver of webhooks.
    receivers: Mapping[str, str]

    @property
    def months(self) -> list[int]:
        """The months of which there are days."""
        return sorted({month for month, _ in self.days})

    def count(self, kind: Kind) -> int:
        """Return how many jobs of this kind the whole run has."""
        months = len(self.months)
        match kind:
            case Kind.DAY:
                return len(self.days)
            case Kind.YEAR:
                return 1
            case Kind.REPORT | Kind.MAIL:
                return months
            case Kind.WEBHOOK:
                return 2 * (months - 1) + len(RECEIVERS)
            case Kind.IMAGE:
                return len(self.pictures)
            case Kind.ODD:
                return len(list(self.odd()))

    def daily(self) -> Iterator[Planned]:
        """Yield a summary for each day; in their midst, the long report of the year."""
        days = list(self.days)
        for at, (month, day) in enumerate(days):
            if at == len(days) // 4:
                yield self.year
            date = f"2013-{month:02}-{day:02}"
            yield self._job(
                Kind.DAY,
                f"day-{date}",
                title=f"summary of {date}",
                actor="data.aggregate",
                source="flights",
                group_by=["origin", "carrier"],
                measures=_MEASURES,
                filter={"month": month, "day": day},
                path=f"days/{date}.parquet",
            )

    @property
    def year(self) -> Planned:
        """The job that runs for seconds; its worker is killed meanwhile."""
        return self._job(
            Kind.YEAR,
            "year",
            title="report of the year",
            actor="report.generate",
            query="flights/rolling_delays",
            source="flights",
            format="parquet",
            path="reports/2013-rolling-delays.parquet",
        )

    def report(self, month: int) -> Planned:
        """Return the report of a month whose days have all been summed up.

        It names another pool than its actor does, so that it need not wait behind the days.
        """
        return self._job(
            Kind.REPORT,
            f"report-2013-{month:02}",
            title=f"report of 2013-{month:02}",
            actor="report.generate",
            queue="default",
            query="flights/carriers_of_month",
            source="flights",
            parameters={"month": month},
            format="xlsx",
            path=f"reports/2013-{month:02}-carriers.xlsx",
        )

    def after_report(self, month: int, result: Mapping[str, Any]) -> Iterator[Planned]:
        """Yield what a finished report is followed by: its mail and its webhooks."""
        title = f"Carriers in 2013-{month:02}"
        yield self._job(
            Kind.MAIL,
            f"mail-2013-{month:02}",
            title=f"mail of 2013-{month:02}",
            actor="email.send",
            to=["operations@airports.example"],
            template="report-ready",
            context={"title": title, "rows": result["rows"], "name": "operations"},
            attachments=[result["url"]],
        )
        at = self.months.index(month)
        wanted = RECEIVERS if at == 0 else (RECEIVERS[at % (len(RECEIVERS) - 1)], RECEIVERS[-1])
        for receiver in wanted:
            closed = receiver == "closed"
            yield self._job(
                Kind.WEBHOOK,
                f"webhook-2013-{month:02}-{receiver}",
                title=f"webhook of 2013-{month:02} to /{receiver}",
                actor="webhook.deliver",
                dead_as=Reason.REFUSED if closed else None,
                url=self.receivers[receiver],
                payload={
                    "report": title,
                    "url": result["url"],
                    "rows": result["rows"],
                    "sha256": result["sha256"],
                },
            )

    def images(self) -> Iterator[Planned]:
        """Yield the pictures to resize, as a client without the SDK writes them."""
        for name in self.pictures:
            arguments = {
                "image": f"charts/{name}",
                "sizes": SIZES,
                "folder": "pictures",
                "format": "webp",
            }
            yield Planned(
                id=f"{self.run}-picture-{name.partition('.')[0]}",
                kind=Kind.IMAGE,
                title=f"picture {name}",
                actor="image.resize",
                arguments=arguments,
                key="any.image.resize",
                body=json.dumps(arguments).encode(),
            )

    def odd(self) -> Iterator[Planned]:
        """Yield the messages that cannot end well."""
        wrong = (
            (
                "crash",
                "a job that kills its worker",
                "demo.crash",
                "any",
                b"{}",
                Reason.WORKER_KILLED,
            ),
            (
                "malformed",
                "a malformed message",
                "image.resize",
                "any",
                b'{"image": "charts/2013-01.jpg", "sizes": [',
                Reason.NOT_JSON,
            ),
            (
                "unknown",
                "a message for an unknown actor",
                "flights.predict",
                "bulk",
                b'{"day": "2014-01-01"}',
                Reason.UNKNOWN_ACTOR,
            ),
            (
                "unroutable",
                "a message that no queue wants",
                "flights.predict",
                "any",
                b'{"day": "2014-01-01"}',
                UNROUTABLE,
            ),
        )
        for name, title, actor, queue, body, reason in wrong:
            yield Planned(
                id=f"{self.run}-{name}",
                kind=Kind.ODD,
                title=title,
                actor=actor,
                arguments={},
                key=f"{queue}.{actor}",
                body=body,
                dead_as=reason,
            )

    def _job(
        self,
        kind: Kind,
        name: str,
        *,
        title: str,
        actor: str,
        dead_as: str | None = None,
        queue: str | None = None,
        **arguments: Any,
    ) -> Planned:
        return Planned(
            id=f"{self.run}-{name}",
            kind=kind,
            title=title,
            actor=actor,
            arguments=arguments,
            queue=queue,
            dead_as=dead_as,
        )
