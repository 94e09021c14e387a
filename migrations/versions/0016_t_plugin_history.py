"""Table t_plugin_history."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_history",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("plugin_id", sa.String(96), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("from_version", sa.String(32), nullable=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("credential_id", sa.BigInteger(), nullable=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_t_plugin_history"),
    )
    schema.create_index("ix_t_plugin_history_plugin", "t_plugin_history", ["plugin_id", "id"])
