"""Table app_source."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    schema.create_table(
        "app_source",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("source", schema.FLAG, nullable=False),
        sa.Column("source_id", sa.String(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("create_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("update_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_app_source"),
        sa.UniqueConstraint("source_id", name="uq_app_source_source_id"),
    )
