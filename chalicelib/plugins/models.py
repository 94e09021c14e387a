"""Plugins: the active registration, its immutable versions, what installs them, and what they leave behind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, String, Text, UniqueConstraint
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, UtcDateTime
from chalicelib.core.ids import new_id, new_ulid

FLAG = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")

DISABLED, ENABLED, BROKEN = 0, 1, 2
UNREGISTERED, REGISTERING, REGISTERED, REGISTER_FAILED = 0, 1, 2, 3

# The states of an install task; the last four are terminal but for `failed`, which may be retried.
AWAITING_UPLOAD, VERIFYING = "awaiting_upload", "verifying"
TASK_REGISTERED, REJECTED, FAILED, CANCELLED, EXPIRED = (
    "registered",
    "rejected",
    "failed",
    "cancelled",
    "expired",
)
TERMINAL = (TASK_REGISTERED, REJECTED, FAILED, CANCELLED, EXPIRED)


def _now() -> datetime:
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
    install_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)


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
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)


class PluginConfig(Base):
    """Values for a plugin's configSchema, at one of three scopes; secret fields are ciphertext."""

    __tablename__ = "t_plugin_config"
    __table_args__ = (
        UniqueConstraint("config_id"),
        UniqueConstraint("plugin_id", "scope", "scope_id", "name", name="uq_t_plugin_config_scope"),
        Index("ix_t_plugin_config_plugin", "plugin_id", "id"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "plugins"
    cache_key: ClassVar[str] = "plugin_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    config_id: Mapped[str] = mapped_column(String(26), default=new_ulid)
    plugin_id: Mapped[str] = mapped_column(String(96))
    # The app that may see and use it; a shared plugin has configs of several apps.
    app_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(64))
    config_items: Mapped[Any] = mapped_column(JsonDocument())
    scope: Mapped[str] = mapped_column(String(16))
    scope_id: Mapped[str] = mapped_column(String(128), default="")
    is_default: Mapped[int] = mapped_column(FLAG, default=0)
    created_by: Mapped[int | None] = mapped_column(BigInteger)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)


class PluginInstall(Base):
    """An install task: what a publisher watches, and what the sweep brings to an end."""

    __tablename__ = "t_plugin_install"
    __table_args__ = (
        UniqueConstraint("install_id"),
        Index("ix_t_plugin_install_app", "app_id", "id"),
        Index("ix_t_plugin_install_app_state", "app_id", "state", "id"),
        Index("ix_t_plugin_install_state", "state", "updated_at"),
        UniqueConstraint("object_key", "object_version"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    install_id: Mapped[str] = mapped_column(String(26), default=new_ulid)
    app_id: Mapped[int] = mapped_column(BigInteger)
    # Who asked: the credential and the request, for audit and history rows that a later function writes.
    credential_id: Mapped[int | None] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(String(20))
    # Set for an update: the plugin that this package must belong to.
    plugin_id: Mapped[str | None] = mapped_column(String(96))
    allow_downgrade: Mapped[int] = mapped_column(FLAG, default=0)
    filename: Mapped[str] = mapped_column(String(255), default="")
    declared_size: Mapped[int | None] = mapped_column(BigInteger)
    declared_sha256: Mapped[str | None] = mapped_column(String(64))
    object_key: Mapped[str] = mapped_column(String(500))
    object_version: Mapped[str] = mapped_column(String(128), default="")
    state: Mapped[str] = mapped_column(String(20), default=AWAITING_UPLOAD)
    step: Mapped[str] = mapped_column(String(32), default="")
    progress: Mapped[int] = mapped_column(SmallInteger, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    errors: Mapped[Any] = mapped_column(JsonDocument(), default=list)
    error_code: Mapped[str | None] = mapped_column(String(64))
    timings: Mapped[Any] = mapped_column(JsonDocument(), default=dict)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime())
    upload_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    # The outcome.
    result_plugin_id: Mapped[str | None] = mapped_column(String(96))
    result_version: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)


class PluginDependency(Base):
    """What the active version of a plugin needs, one row per name: "who needs X" is an index look-up."""

    __tablename__ = "t_plugin_dependency"
    __table_args__ = (Index("ix_t_plugin_dependency_name", "name", "plugin_id"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    plugin_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    range: Mapped[str] = mapped_column(String(255))
    optional: Mapped[int] = mapped_column(FLAG, default=0)


class PluginTombstone(Base):
    """Everything ever registered: a version number is never reused with other bytes, also after an uninstall."""

    __tablename__ = "t_plugin_tombstone"
    __table_args__ = (UniqueConstraint("app_id", "name", "version"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(32))
    checksum: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)


class PluginRemoval(Base):
    """An uninstalled plugin whose objects and rows are still to be deleted; the sweep finishes what a kill left."""

    __tablename__ = "t_plugin_removal"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[None] = None
    plugin_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    app_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)


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
    at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)


class PluginExecution(Base):
    """One row per run. Parameters, results and logs are payloads and are not kept."""

    __tablename__ = "t_plugin_execution"
    __table_args__ = (
        UniqueConstraint("execution_id"),
        Index("ix_t_plugin_execution_plugin", "plugin_id", "app_id", "id"),
        Index("ix_t_plugin_execution_started", "started_at"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    execution_id: Mapped[str] = mapped_column(String(26), default=new_ulid)
    plugin_id: Mapped[str] = mapped_column(String(96))
    app_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[str] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(128), default="")
    outcome: Mapped[str] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(64))
    duration_us: Mapped[int] = mapped_column(BigInteger)
    cold_load: Mapped[int] = mapped_column(FLAG, default=0)
    load_us: Mapped[int] = mapped_column(BigInteger, default=0)
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    instance_id: Mapped[str] = mapped_column(String(36), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)


class PluginMetric(Base):
    """Executions of one plugin version in one minute that took about as long: one row per bucket of a histogram with
    fixed bounds (plugins/metrics.py), because MySQL has no percentile."""

    __tablename__ = "t_plugin_metric"
    __table_args__ = (
        Index("ix_t_plugin_metric_minute", "minute"),
        Index("ix_t_plugin_metric_app", "app_id", "minute"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    plugin_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    app_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    version: Mapped[str] = mapped_column(String(32), primary_key=True)
    # Unix time of the minute, in minutes.
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    # Index into the histogram's bounds.
    bucket: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    executions: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    cold_loads: Mapped[int] = mapped_column(BigInteger, default=0)
    load_us: Mapped[int] = mapped_column(BigInteger, default=0)
    # The most that was seen.
    memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime())
    last_error: Mapped[str | None] = mapped_column(String(64))
    last_error_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class PluginGraph(Base):
    """The one row that whoever changes the plugin graph locks first: locking a single plugin does not stop
    "enable A" and "disable B, which A needs" from passing each other."""

    __tablename__ = "plugin_graph"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    changes: Mapped[int] = mapped_column(BigInteger, default=0)
