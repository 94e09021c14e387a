"""Table flow_run_event."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    schema.create_table(
        "flow_run_event",
        sa.Column("run_id", sa.String(26), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("frame", schema.MEDIUM_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_flow_run_event"),
    )
