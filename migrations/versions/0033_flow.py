"""Table flow."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    schema.create_table(
        "flow",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("data", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("release_data", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("description", sa.String(1024), nullable=False),
        sa.Column("version", sa.String(128), nullable=False, server_default=""),
        sa.Column("version_key", sa.String(24), nullable=False, server_default=""),
        sa.Column("status", schema.FLAG, nullable=False),
        sa.Column("release_status", schema.FLAG, nullable=False),
        sa.Column("release_api", schema.FLAG, nullable=False),
        sa.Column("app_id", sa.String(32), nullable=False),
        sa.Column("source", schema.FLAG, nullable=False),
        sa.Column("tag", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("input_schema", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("warnings", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("operations", sa.Integer(), nullable=True),
        sa.Column("is_deleted", schema.FLAG, nullable=False),
        sa.Column("create_by", sa.BigInteger(), nullable=True),
        sa.Column("update_by", sa.BigInteger(), nullable=True),
        sa.Column("create_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("update_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_flow"),
        sa.UniqueConstraint("group_id", "version", name="uq_flow_group_id_version"),
        sa.UniqueConstraint("group_id", "version_key", name="uq_flow_group_id_version_key"),
    )
    schema.create_index("ix_flow_app", "flow", ["app_id", "is_deleted", "version_key", "id"])
    schema.create_index("ix_flow_published", "flow", ["group_id", "tag", "status", "version_key"])
