"""Values of the configuration of plugins."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, UtcDateTime
from chalicelib.core.ids import new_id, new_ulid
from chalicelib.plugins.models import FLAG, now


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
    create_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=now)
    update_time: Mapped[datetime] = mapped_column(UtcDateTime(), default=now, onupdate=now)
