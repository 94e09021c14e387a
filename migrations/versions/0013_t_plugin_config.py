"""Table t_plugin_config."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_config",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("config_id", sa.String(26), nullable=False),
        sa.Column("plugin_id", sa.String(96), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("config_items", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("scope_id", sa.String(128), nullable=False),
        sa.Column("is_default", schema.FLAG, nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("create_time", schema.UTC_DATETIME, nullable=False),
        sa.Column("update_time", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_t_plugin_config"),
        sa.UniqueConstraint("config_id", name="uq_t_plugin_config_config_id"),
        sa.UniqueConstraint("plugin_id", "scope", "scope_id", "name", name="uq_t_plugin_config_scope"),
    )
    schema.create_index("ix_t_plugin_config_plugin", "t_plugin_config", ["plugin_id", "id"])
