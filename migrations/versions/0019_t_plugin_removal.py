"""Table t_plugin_removal."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_removal",
        sa.Column("plugin_id", sa.String(96), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("plugin_id", name="pk_t_plugin_removal"),
    )
