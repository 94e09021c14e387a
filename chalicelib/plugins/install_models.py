"""What installs plugins, what they need, and what they leave behind."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, UtcDateTime
from chalicelib.core.ids import new_id, new_ulid
from chalicelib.plugins.models import FLAG, now

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
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now, onupdate=now)


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
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)


class PluginRemoval(Base):
    """An uninstalled plugin whose objects and rows are still to be deleted; the sweep finishes what a kill left."""

    __tablename__ = "t_plugin_removal"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[None] = None
    plugin_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    app_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)


class PluginGraph(Base):
    """The one row that whoever changes the plugin graph locks first: locking a single plugin does not stop
    "enable A" and "disable B, which A needs" from passing each other."""

    __tablename__ = "plugin_graph"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    changes: Mapped[int] = mapped_column(BigInteger, default=0)
