"""Table t_plugin_dependency."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_dependency",
        sa.Column("plugin_id", sa.String(96), nullable=False, autoincrement=False),
        sa.Column("name", sa.String(64), nullable=False, autoincrement=False),
        sa.Column("range", sa.String(255), nullable=False),
        sa.Column("optional", schema.FLAG, nullable=False),
        sa.PrimaryKeyConstraint("plugin_id", "name", name="pk_t_plugin_dependency"),
    )
    schema.create_index("ix_t_plugin_dependency_name", "t_plugin_dependency", ["name", "plugin_id"])
