"""Plugins: the active registration, its immutable versions, and what was done to them.

That is what a read needs; what installs, configures and runs them has tables in modules of its own, for a cold start
pays 1.5 ms for each.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, SmallInteger, String, Text, UniqueConstraint
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, UtcDateTime
from chalicelib.core.ids import new_id

FLAG = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")

DISABLED, ENABLED, BROKEN = 0, 1, 2
UNREGISTERED, REGISTERING, REGISTERED, REGISTER_FAILED = 0, 1, 2, 3


def now() -> datetime:
    return datetime.now(UTC)


class Plugin(Base):
    """The active registration: one row per plugin, a copy of the active version's facts."""

    __tablename__ = "t_plugin"
    __table_args__ = (
        UniqueConstraint("app_id", "name"),
        UniqueConstraint("plugin_id"),
        # Each filter of the listing, in the order that it is listed in.
        Index("idx_plugin_source", "source", "app_id", "id"),
        Index("idx_plugin_status", "is_enabled", "app_id", "id"),
        Index("ix_t_plugin_type", "plugin_type", "app_id", "id"),
        Index("ix_t_plugin_visibility", "visibility", "id"),
        Index("ix_t_plugin_app", "app_id", "id"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "plugins"
    cache_key: ClassVar[str] = "plugin_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    plugin_id: Mapped[str] = mapped_column(String(96))
    app_id: Mapped[int] = mapped_column(BigInteger)
    visibility: Mapped[str] = mapped_column(String(16), default="private")
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(32))
    description: Mapped[str] = mapped_column(Text, default="")
    author: Mapped[str] = mapped_column(String(255), default="")
    plugin_type: Mapped[str] = mapped_column(String(16))
    entry_point: Mapped[str] = mapped_column(String(1024))
    config_schema: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    params_schema: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    default_config: Mapped[Any] = mapped_column(JsonDocument())
    icon: Mapped[str] = mapped_column(Text, default="")
    repository: Mapped[str] = mapped_column(Text, default="")
    documentation: Mapped[str] = mapped_column(Text, default="")
    is_enabled: Mapped[int] = mapped_column(FLAG, default=DISABLED)
    is_builtin: Mapped[int] = mapped_column(FLAG, default=0)
    checksum: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(20), default="local")
    s3_path: Mapped[str] = mapped_column(String(500), default="")
    # The version of the stored object that was hashed: whatever is put at the key later is not what was registered.
    s3_version: Mapped[str] = mapped_column(String(128), default="")
    manifest: Mapped[Any] = mapped_column(JsonDocument())
    runtime: Mapped[str] = mapped_column(String(16), default="none")
    # What an admin granted of what the manifest asks for: {"network": [hosts]}.
    grants: Mapped[Any] = mapped_column(JsonDocument(), default=dict)
    register_status: Mapped[int] = mapped_column(FLAG, default=REGISTERED)
    register_error: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(BigInteger, default=1)
    created_by: Mapped[int | None] = mapped_column(BigInteger)
    install_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=now, onupdate=now)


class PluginVersion(Base):
    """One immutable version: what was hashed, where its bytes are, and the manifest as it was given."""

    __tablename__ = "t_plugin_version"
    __table_args__ = (
        UniqueConstraint("plugin_id", "version"),
        Index("ix_t_plugin_version_plugin", "plugin_id", "id"),
        Index("ix_t_plugin_version_compiled", "wasm_sha256"),
        Index("ix_t_plugin_version_size", "size", "compiled_size"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "plugins"
    cache_key: ClassVar[str] = "plugin_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    plugin_id: Mapped[str] = mapped_column(String(96))
    version: Mapped[str] = mapped_column(String(32))
    checksum: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    s3_path: Mapped[str] = mapped_column(String(500))
    s3_version: Mapped[str] = mapped_column(String(128))
    manifest: Mapped[Any] = mapped_column(JsonDocument())
    runtime: Mapped[str] = mapped_column(String(16))
    # Set for wasm: the module's digest, which engine compiled it, and the compiled object.
    wasm_sha256: Mapped[str | None] = mapped_column(String(64))
    compiled_engine: Mapped[str | None] = mapped_column(String(128))
    compiled_path: Mapped[str | None] = mapped_column(String(500))
    compiled_version: Mapped[str | None] = mapped_column(String(128))
    compiled_sha256: Mapped[str | None] = mapped_column(String(64))
    compiled_size: Mapped[int | None] = mapped_column(BigInteger)
    signed_by: Mapped[str | None] = mapped_column(String(128))
    # The values of the plugin's configs while this version was active: a rollback across a schema change needs them.
    config_snapshot: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    created_by: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)


class PluginHistory(Base):
    """Who did what to which version of a plugin, when, with what outcome."""

    __tablename__ = "t_plugin_history"
    __table_args__ = (Index("ix_t_plugin_history_plugin", "plugin_id", "id"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    plugin_id: Mapped[str] = mapped_column(String(96))
    app_id: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(String(32))
    version: Mapped[str] = mapped_column(String(32))
    from_version: Mapped[str | None] = mapped_column(String(32))
    outcome: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text, default="")
    credential_id: Mapped[int | None] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(String(64), default="")
    at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)
