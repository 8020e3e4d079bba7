"""The ledger's rows, written and read by a test as a recorder would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg.rows import dict_row

from leveret.ledger.watch import CHANNEL
from leveret.store.engine import conninfo
from leveret.store.identity import own_time
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence


class Ledger:
    """The tables ``jobs`` and ``watches`` of one database; a context manager, for any thread."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(conninfo(url), autocommit=True, row_factory=dict_row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def write(self, job_id: str, state: str, **columns: Any) -> str:
        """Write where a job stands, tell whoever watches it, and return its id."""
        self.write_many([job_id], state, **columns)
        return job_id

    def write_many(self, ids: Sequence[str], state: str, **columns: Any) -> None:
        """Write where jobs stand, in one transaction."""
        columns["state"] = state
        names = ", ".join(columns)
        holes = ", ".join(["%s"] * len(columns))
        news = ", ".join(f"{name} = excluded.{name}" for name in columns)
        with self._connection.transaction():
            for job_id in ids:
                created_at = own_time(job_id)
                if created_at is None:
                    row = self._connection.execute(
                        "INSERT INTO job_ids (id, created_at) VALUES (%s, now()) ON CONFLICT (id)"
                        " DO UPDATE SET created_at = job_ids.created_at RETURNING created_at",
                        (job_id,),
                    ).fetchone()
                    created_at = row["created_at"]
                self._connection.execute(
                    f"INSERT INTO jobs (id, created_at, {names}) VALUES (%s, %s, {holes})"
                    f" ON CONFLICT (id, created_at) DO UPDATE SET {news}, updated_at = now()",
                    (job_id, created_at, *columns.values()),
                )
            self._connection.execute(
                f"SELECT pg_notify('{CHANNEL}', job_id) FROM watches WHERE job_id = ANY(%s)",
                (list(ids),),
            )

    def row(self, job_id: str) -> dict[str, Any] | None:
        """Read the row of a job."""
        return self._connection.execute("SELECT * FROM jobs WHERE id = %s", (job_id,)).fetchone()

    def watched(self) -> set[str]:
        """Return the jobs that somebody watches."""
        return {row["job_id"] for row in self._connection.execute("SELECT job_id FROM watches")}

    def wait_watched(self, *ids: str) -> None:
        """Return when somebody watches these jobs."""
        wait_until(
            lambda: set(ids) <= self.watched(), timeout=30, what=f"{len(ids)} jobs are watched"
        )

    def forget_watches(self) -> None:
        """Do as a crash of the database does."""
        self._connection.execute("TRUNCATE watches")

    def connections(self, application: str) -> set[int]:
        """Return the server processes of an application's connections to this database."""
        rows = self._connection.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = %s",
            (application,),
        ).fetchall()
        return {row["pid"] for row in rows}
