"""Table job_run."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    schema.create_table(
        "job_run",
        sa.Column("job", sa.String(64), nullable=False, autoincrement=False),
        sa.Column("started_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("finished_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("result", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("state", schema.MEDIUM_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_job_run"),
    )
