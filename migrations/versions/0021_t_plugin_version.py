"""Table t_plugin_version."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_version",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("plugin_id", sa.String(96), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("s3_path", sa.String(500), nullable=False),
        sa.Column("s3_version", sa.String(128), nullable=False),
        sa.Column("manifest", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("runtime", sa.String(16), nullable=False),
        sa.Column("wasm_sha256", sa.String(64), nullable=True),
        sa.Column("compiled_engine", sa.String(128), nullable=True),
        sa.Column("compiled_path", sa.String(500), nullable=True),
        sa.Column("compiled_version", sa.String(128), nullable=True),
        sa.Column("compiled_sha256", sa.String(64), nullable=True),
        sa.Column("compiled_size", sa.BigInteger(), nullable=True),
        sa.Column("signed_by", sa.String(128), nullable=True),
        sa.Column("config_snapshot", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_t_plugin_version"),
        sa.UniqueConstraint("plugin_id", "version", name="uq_t_plugin_version_plugin_id_version"),
    )
    schema.create_index("ix_t_plugin_version_compiled", "t_plugin_version", ["wasm_sha256"])
    schema.create_index("ix_t_plugin_version_plugin", "t_plugin_version", ["plugin_id", "id"])
    schema.create_index("ix_t_plugin_version_size", "t_plugin_version", ["size", "compiled_size"])
