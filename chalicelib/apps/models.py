"""Tenants, their credentials and their named secrets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MYSQL_TABLE, Base, JsonDocument, UtcDateTime
from chalicelib.core.ids import new_id

# The only form of a tenant's name in the API, in storage keys and in logs.
ALIAS_PATTERN = "^[a-z][a-z0-9-]{1,62}$"
# What a client may name a secret; names of our own begin with `$`, which no client can write.
SECRET_NAME_PATTERN = "^[A-Za-z][A-Za-z0-9_-]{0,63}$"  # noqa: S105 - a pattern
WEBHOOK_SECRET_NAME = "$webhook"  # noqa: S105 - a name
FLAG = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")


def _now() -> datetime:
    return datetime.now(UTC)


class App(Base):
    """A tenant. `api_key` and `api_secret` are read only while data of an older system is brought over; callers
    authenticate with `AppCredential`."""

    __tablename__ = "app"
    __table_args__ = (UniqueConstraint("alias_id"), MYSQL_TABLE)
    cache_scope: ClassVar[str] = "apps"
    cache_key: ClassVar[str] = "id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    name: Mapped[str] = mapped_column(String(30))
    alias_id: Mapped[str] = mapped_column(String(64))
    api_key: Mapped[str] = mapped_column(String(50), default="")
    api_secret: Mapped[str] = mapped_column(String(50), default="")
    description: Mapped[str] = mapped_column(String(255), default="")
    is_tenant: Mapped[int] = mapped_column(FLAG, default=1)
    # Bits: 1 workbench, 2 open platform, 4 device.
    source: Mapped[int] = mapped_column(FLAG, default=1)
    actual_source: Mapped[int] = mapped_column(FLAG, default=1)
    # Platforms that the app may publish flows to, as bits: a new one to the workbench, until an admin says otherwise.
    plat_release_auth: Mapped[int] = mapped_column(FLAG, default=1)
    status: Mapped[int] = mapped_column(FLAG, default=1)
    # 1 also records reads in the audit log.
    audit_policy: Mapped[int] = mapped_column(FLAG, default=0)
    create_by: Mapped[int | None] = mapped_column(BigInteger)
    update_by: Mapped[int | None] = mapped_column(BigInteger)
    create_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    update_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)


class AppSource(Base):
    """Where an app came from, as the original platform recorded it."""

    __tablename__ = "app_source"
    __table_args__ = (UniqueConstraint("source_id"), MYSQL_TABLE)
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    source: Mapped[int] = mapped_column(FLAG)
    source_id: Mapped[str] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(String(255), default="")
    create_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    update_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)


class AppCredential(Base):
    """One key and the SHA-256 of its 256-bit random secret. A slow password hash would add nothing: the secret is
    not a password that someone chose."""

    __tablename__ = "app_credential"
    __table_args__ = (
        UniqueConstraint("api_key"),
        Index("ix_app_credential_app", "app_id", "id"),
        # "Is there another admin?" locks the admins alone.
        Index("ix_app_credential_role", "role", "id"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "apps"
    cache_key: ClassVar[str] = "app_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("app.id"))
    api_key: Mapped[str] = mapped_column(String(50))
    secret_hash: Mapped[bytes] = mapped_column(
        LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")
    )
    role: Mapped[str] = mapped_column(String(16))
    label: Mapped[str] = mapped_column(String(64), default="")
    status: Mapped[int] = mapped_column(FLAG, default=1)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    created_by: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)


class AppSecret(Base):
    """A named secret of an app (an LLM key, a tool token, the webhook secret), encrypted; never returned.

    Parameters
    ----------
    hosts
        JSON: the hosts that it may be sent to, over HTTPS to its own port, or to the port that is named. None: to none,
        since whoever edits a flow must not be able to have it sent to a server of their own.
    """

    __tablename__ = "app_secret"
    __table_args__ = (UniqueConstraint("app_id", "name"), MYSQL_TABLE)
    cache_scope: ClassVar[str] = "apps"
    cache_key: ClassVar[str] = "app_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("app.id"))
    name: Mapped[str] = mapped_column(String(64))
    ciphertext: Mapped[str] = mapped_column(Text)
    updated_by: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)
    hosts: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
