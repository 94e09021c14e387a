"""Flows: the draft that is edited, the versions that are published of it, and who may run them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, SmallInteger, String, UniqueConstraint
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MEDIUM_TEXT, MYSQL_TABLE, Base, JsonDocument, UtcDateTime
from chalicelib.core.ids import new_id
from chalicelib.flows.names import EVERY_PLATFORM
from chalicelib.flows.release import is_live

FLAG = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")
NO_TAG, COMPARISON = 0, 1
# What the draft has where a version has its number.
DRAFT = ""


def _now() -> datetime:
    return datetime.now(UTC)


def _status(context: Any) -> int:
    given = context.get_current_parameters()
    return int(is_live(given.get("release_status") or 0) and not given.get("tag"))


class Flow(Base):
    """A flow's draft, one published version of it, or a comparison.

    The draft has the flow's own id as `id` and `group_id`, and the version `''`; whoever changes anything of a flow
    locks the draft first. What may hold megabytes is read only where it is asked for.

    Parameters
    ----------
    data, release_data
        JSON text: the draft's, and what a version or a comparison has frozen.
    version_key
        Sorts as the version does as numbers: `''` for the draft.
    status
        1 while a version is published on any platform, so that the newest of those is the last entry of a range of
        one index; else 0.
    release_status, release_api
        See `release`.
    source
        Of the draft: the platforms that it may ever be published on, as bits.
    tag
        1 for a comparison: a frozen copy to be run beside a version, never published.
    revision
        Counted up by every UPDATE of the row, which is conditional on the number that was read.
    checksum
        SHA-256 hex of the data in canonical form.
    warnings
        Of the draft: what is wrong with it. Of a version: what was doubtful when it was published.
    operations
        Of a version: durable operations in the worst case.
    is_deleted
        1 for a draft that was deleted, and with it the flow.
    """

    __tablename__ = "flow"
    __table_args__ = (
        UniqueConstraint("group_id", "version"),
        # v1 and v1.0 are one version.
        UniqueConstraint("group_id", "version_key"),
        Index("ix_flow_published", "group_id", "tag", "status", "version_key"),
        Index("ix_flow_app", "app_id", "is_deleted", "version_key", "id"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "flows"
    cache_key: ClassVar[str] = "group_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    group_id: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(128))
    data: Mapped[str | None] = mapped_column(MEDIUM_TEXT, deferred=True)
    release_data: Mapped[str | None] = mapped_column(MEDIUM_TEXT, deferred=True)
    description: Mapped[str] = mapped_column(String(1024), default="")
    version: Mapped[str] = mapped_column(String(128), default=DRAFT, server_default=DRAFT)
    version_key: Mapped[str] = mapped_column(String(24), default="", server_default="")
    status: Mapped[int] = mapped_column(FLAG, default=_status)
    release_status: Mapped[int] = mapped_column(FLAG, default=0)
    release_api: Mapped[int] = mapped_column(FLAG, default=0)
    # app.id as decimal text, as in the system that this table comes from.
    app_id: Mapped[str] = mapped_column(String(32))
    source: Mapped[int] = mapped_column(FLAG, default=EVERY_PLATFORM)
    tag: Mapped[int] = mapped_column(Integer, default=NO_TAG)
    revision: Mapped[int] = mapped_column(Integer, default=1)
    checksum: Mapped[str] = mapped_column(String(64), default="")
    input_schema: Mapped[Any] = mapped_column(JsonDocument(), nullable=True, deferred=True)
    warnings: Mapped[Any] = mapped_column(JsonDocument(), nullable=True, deferred=True)
    operations: Mapped[int | None] = mapped_column(Integer)
    is_deleted: Mapped[int] = mapped_column(FLAG, default=0)
    create_by: Mapped[int | None] = mapped_column(BigInteger)
    update_by: Mapped[int | None] = mapped_column(BigInteger)
    create_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    update_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)
    __mapper_args__ = {"version_id_col": revision}  # noqa: RUF012 - as the mapper wants it


class License(Base):
    """That an app may run a flow, in whatever version is published; 0 says that it may no more."""

    __tablename__ = "license"
    __table_args__ = (
        UniqueConstraint("app_id", "group_id"),
        Index("ix_license_group", "group_id", "id"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "flows"
    cache_key: ClassVar[str] = "group_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("app.id"))
    # The draft's.
    group_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("flow.id"))
    status: Mapped[int] = mapped_column(FLAG, default=1)
    create_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    update_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)
