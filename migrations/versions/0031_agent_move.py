"""Table agent_move."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    schema.create_table(
        "agent_move",
        sa.Column("id", sa.String(26), nullable=False, autoincrement=False),
        sa.Column("agent_name", sa.String(100), nullable=False),
        sa.Column("target", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source_table", sa.String(64), nullable=False),
        sa.Column("target_table", sa.String(64), nullable=False),
        sa.Column("keep_days", sa.Integer(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("copied", sa.BigInteger(), nullable=False),
        sa.Column("copied_through", sa.BigInteger(), nullable=False),
        sa.Column("verified", sa.BigInteger(), nullable=False),
        sa.Column("verified_through", sa.BigInteger(), nullable=False),
        sa.Column("source_digest", sa.String(64), nullable=True),
        sa.Column("target_digest", sa.String(64), nullable=True),
        sa.Column("keep_until", schema.UTC_DATETIME, nullable=True),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("created_by", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent_move"),
    )
    schema.create_index("ix_agent_move_agent", "agent_move", ["agent_name", "id"])
    schema.create_index("ix_agent_move_keep_until", "agent_move", ["keep_until"])
    schema.create_index("ix_agent_move_state", "agent_move", ["state", "id"])
