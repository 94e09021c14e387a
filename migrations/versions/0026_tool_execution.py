"""Table tool_execution."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    schema.create_table(
        "tool_execution",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("execution_id", sa.String(26), nullable=False),
        sa.Column("tool_id", sa.String(32), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("operation", sa.String(128), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("started_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tool_execution"),
        sa.UniqueConstraint("execution_id", name="uq_tool_execution_execution_id"),
    )
    schema.create_index("ix_tool_execution_started", "tool_execution", ["started_at"])
    schema.create_index("ix_tool_execution_tool", "tool_execution", ["tool_id", "app_id", "id"])
