"""Table agent."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    schema.create_table(
        "agent",
        sa.Column("name", sa.String(100), nullable=False, autoincrement=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("is_enabled", sa.SmallInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("history_mode", sa.String(16), nullable=True),
        sa.Column("moving_to", sa.String(16), nullable=True),
        sa.Column("load_error", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_agent"),
    )
