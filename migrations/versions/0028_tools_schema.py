"""Table tools_schema."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    schema.create_table(
        "tools_schema",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.String(32), nullable=False),
        sa.Column("tool_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("description", sa.String(512), nullable=False),
        sa.Column("open_api_schema", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("create_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("update_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("mcp_server_url", sa.String(255), nullable=True),
        sa.Column("schema", schema.MEDIUM_TEXT, nullable=True),
        sa.Column("version", sa.String(32), nullable=False, server_default="V1.0"),
        sa.Column("is_deleted", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_tools_schema"),
        sa.UniqueConstraint("tool_id", "version", "is_deleted", name="unique_tool_version"),
    )
    schema.create_index("ix_tools_schema_app", "tools_schema", ["app_id", "is_deleted", "tool_id"])
    schema.create_index("ix_tools_schema_deleted", "tools_schema", ["is_deleted", "update_at"])
