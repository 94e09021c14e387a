"""Table t_plugin_execution."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_execution",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("execution_id", sa.String(26), nullable=False),
        sa.Column("plugin_id", sa.String(96), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("cold_load", schema.FLAG, nullable=False),
        sa.Column("load_us", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("instance_id", sa.String(36), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("started_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_t_plugin_execution"),
        sa.UniqueConstraint("execution_id", name="uq_t_plugin_execution_execution_id"),
    )
    schema.create_index("ix_t_plugin_execution_plugin", "t_plugin_execution", ["plugin_id", "app_id", "id"])
    schema.create_index("ix_t_plugin_execution_started", "t_plugin_execution", ["started_at"])
