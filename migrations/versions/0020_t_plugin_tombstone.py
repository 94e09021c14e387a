"""Table t_plugin_tombstone."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_tombstone",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_t_plugin_tombstone"),
        sa.UniqueConstraint("app_id", "name", "version", name="uq_t_plugin_tombstone_app_id_name_version"),
    )
