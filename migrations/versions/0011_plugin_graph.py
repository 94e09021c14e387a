"""Table plugin_graph."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    schema.create_table(
        "plugin_graph",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plugin_graph"),
    )
