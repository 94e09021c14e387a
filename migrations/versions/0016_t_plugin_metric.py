"""Table t_plugin_metric."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_metric",
        sa.Column("plugin_id", sa.String(96), nullable=False, autoincrement=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("version", sa.String(32), nullable=False, autoincrement=False),
        sa.Column("minute", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("executions", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("cold_loads", sa.BigInteger(), nullable=False),
        sa.Column("load_us", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("histogram", schema.MEDIUM_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("plugin_id", "app_id", "version", "minute", name="pk_t_plugin_metric"),
    )
    schema.create_index("ix_t_plugin_metric_minute", "t_plugin_metric", ["minute"])
