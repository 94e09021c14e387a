"""Table agent_table."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    schema.create_table(
        "agent_table",
        sa.Column("table_name", sa.String(64), nullable=False, autoincrement=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("schema_hash", sa.String(64), nullable=False),
        sa.Column("earlier_hashes", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("problems", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("retain_days", sa.Integer(), nullable=True),
        sa.Column("retain_rows", sa.BigInteger(), nullable=True),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("table_name", name="pk_agent_table"),
    )
    schema.create_index("ix_agent_table_owner", "agent_table", ["owner", "table_name"])
