"""Table flow_run_node."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    schema.create_table(
        "flow_run_node",
        sa.Column("run_id", sa.String(26), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("node_key", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("node_id", sa.String(255), nullable=False),
        sa.Column("node_type", sa.String(64), nullable=False),
        sa.Column("alias_name", sa.String(255), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("inputs", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("outputs", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("error", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("usage", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("started_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "position", name="pk_flow_run_node"),
    )
