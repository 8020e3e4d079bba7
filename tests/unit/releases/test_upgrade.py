"""What in a migration would disturb the processes of the release before."""

from __future__ import annotations

import pytest

from tests.releases.upgrade import dangers


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE jobs DROP COLUMN worker",
        "DROP TABLE watches",
        "ALTER TABLE jobs RENAME COLUMN worker TO process",
        "ALTER TABLE jobs ALTER COLUMN run TYPE BIGINT",
        "ALTER TABLE jobs ALTER COLUMN actor SET NOT NULL",
        "ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL",
        "ALTER TABLE claims ADD CONSTRAINT claims_epoch_check CHECK (epoch > 0)",
        "ALTER TABLE claims ADD CONSTRAINT claims_job_id_key UNIQUE (job_id)",
        "CREATE INDEX jobs_worker_idx ON jobs (worker)",
        "CREATE UNIQUE INDEX jobs_worker_idx ON jobs (worker)",
        "UPDATE jobs SET queue = 'default' WHERE queue IS NULL",
        "DELETE FROM claims",
    ],
)
def test_what_disturbs_is_noticed(statement):
    """It is named, with the reason."""
    (said,) = dangers([statement])
    assert said.startswith(statement[:60])


def test_what_only_adds_is_let_through():
    """New tables with all that belongs to them, nullable columns, indexes that lock nobody out."""
    assert (
        dangers(
            [
                "\nCREATE TABLE tenants (\n\tid TEXT NOT NULL\n)\n",
                "CREATE INDEX tenants_idx ON tenants (id)",
                "ALTER TABLE tenants ALTER COLUMN id SET NOT NULL",
                "ALTER TABLE jobs ADD COLUMN tenant TEXT",
                "ALTER TABLE jobs ADD COLUMN weight INTEGER DEFAULT 1 NOT NULL",
                "CREATE INDEX CONCURRENTLY claims_job_idx ON claims (job_id)",
                "CREATE INDEX jobs_worker_idx ON ONLY jobs (worker)",
                "ALTER TABLE claims ADD CONSTRAINT e CHECK (epoch > 0) NOT VALID",
                "ALTER TABLE claims VALIDATE CONSTRAINT e",
                "ALTER TABLE claims ADD CONSTRAINT k UNIQUE USING INDEX claims_job_idx",
                "UPDATE alembic_version SET version_num='0002' WHERE version_num = '0001'",
            ]
        )
        == []
    )
