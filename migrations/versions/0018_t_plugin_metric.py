"""Table t_plugin_metric."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_metric",
        sa.Column("plugin_id", sa.String(96), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("version", sa.String(32), nullable=False, autoincrement=False),
        sa.Column("minute", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False, autoincrement=False),
        sa.Column("executions", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("cold_loads", sa.BigInteger(), nullable=False),
        sa.Column("load_us", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("last_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("last_error", sa.String(64), nullable=True),
        sa.Column("last_error_at", schema.UTC_DATETIME, nullable=True),
        sa.PrimaryKeyConstraint(
            "plugin_id", "app_id", "version", "minute", "bucket", name="pk_t_plugin_metric"
        ),
    )
    schema.create_index("ix_t_plugin_metric_app", "t_plugin_metric", ["app_id", "minute"])
    schema.create_index("ix_t_plugin_metric_minute", "t_plugin_metric", ["minute"])
