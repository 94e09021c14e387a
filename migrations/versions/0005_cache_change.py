"""Table cache_change."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    schema.create_table(
        "cache_change",
        sa.Column("scope", sa.String(32), nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("item_key", sa.String(128), nullable=False, autoincrement=False),
        sa.Column("at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("scope", "version", "item_key", name="pk_cache_change"),
    )
