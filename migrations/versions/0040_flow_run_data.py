"""Table flow_run_data."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    schema.create_table(
        "flow_run_data",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("data", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("used_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_flow_run_data"),
    )
    schema.create_index("ix_flow_run_data_used_at", "flow_run_data", ["used_at"])
