"""Table t_plugin_install."""

from __future__ import annotations

import sqlalchemy as sa

from migrations import schema

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    schema.create_table(
        "t_plugin_install",
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("install_id", sa.String(26), nullable=False),
        sa.Column("app_id", sa.BigInteger(), nullable=False),
        sa.Column("credential_id", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("plugin_id", sa.String(96), nullable=True),
        sa.Column("allow_downgrade", schema.FLAG, nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("declared_size", sa.BigInteger(), nullable=True),
        sa.Column("declared_sha256", sa.String(64), nullable=True),
        sa.Column("object_key", sa.String(500), nullable=False),
        sa.Column("object_version", sa.String(128), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("progress", sa.SmallInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("errors", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("timings", schema.MEDIUM_TEXT, nullable=False),
        sa.Column("lease_owner", sa.String(64), nullable=True),
        sa.Column("lease_until", schema.UTC_DATETIME, nullable=True),
        sa.Column("upload_expires_at", schema.UTC_DATETIME, nullable=True),
        sa.Column("result_plugin_id", sa.String(96), nullable=True),
        sa.Column("result_version", sa.String(32), nullable=True),
        sa.Column("created_at", schema.UTC_DATETIME, nullable=False),
        sa.Column("updated_at", schema.UTC_DATETIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_t_plugin_install"),
        sa.UniqueConstraint("install_id", name="uq_t_plugin_install_install_id"),
        sa.UniqueConstraint(
            "object_key", "object_version", name="uq_t_plugin_install_object_key_object_version"
        ),
    )
    schema.create_index("ix_t_plugin_install_app", "t_plugin_install", ["app_id", "id"])
    schema.create_index("ix_t_plugin_install_app_state", "t_plugin_install", ["app_id", "state", "id"])
    schema.create_index("ix_t_plugin_install_state", "t_plugin_install", ["state", "updated_at"])
