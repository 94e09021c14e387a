"""Table t_plugin."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    schema.create_table(
        "t_plugin",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("plugin_id", sa.String(96), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("visibility", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("author", sa.String(255), nullable=False),
        sa.Column("plugin_type", sa.String(16), nullable=False),
        sa.Column("entry_point", sa.String(1024), nullable=False),
        sa.Column("config_schema", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("params_schema", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("default_config", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("icon", sa.Text(), nullable=False),
        sa.Column("repository", sa.Text(), nullable=False),
        sa.Column("documentation", sa.Text(), nullable=False),
        sa.Column("is_enabled", schema.FLAG, nullable=False),
        sa.Column("is_builtin", schema.FLAG, nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("s3_path", sa.String(500), nullable=False),
        sa.Column("s3_version", sa.String(128), nullable=False),
        sa.Column("manifest", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("runtime", sa.String(16), nullable=False),
        sa.Column("grants", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("register_status", schema.FLAG, nullable=False),
        sa.Column("register_error", sa.Text(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("install_time", schema.UTC_DATETIME, nullable=False),
        sa.Column("update_time", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_t_plugin"),
        sa.UniqueConstraint("app_id", "name", name="uq_t_plugin_app_id_name"),
        sa.UniqueConstraint("plugin_id", name="uq_t_plugin_plugin_id"),
    )
    schema.create_index("idx_plugin_source", "t_plugin", ["source", "app_id", "id"])
    schema.create_index("idx_plugin_status", "t_plugin", ["is_enabled", "app_id", "id"])
    schema.create_index("ix_t_plugin_app", "t_plugin", ["app_id", "id"])
    schema.create_index("ix_t_plugin_type", "t_plugin", ["plugin_type", "app_id", "id"])
    schema.create_index("ix_t_plugin_visibility", "t_plugin", ["visibility", "id"])
