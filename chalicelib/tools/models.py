"""Tools and MCP servers, their versions, the credentials that apps call them with, and what was called."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from chalicelib.core.database import MEDIUM_TEXT, MYSQL_TABLE, Base, JsonDocument, UtcDateTime
from chalicelib.core.ids import new_id, new_ulid

# The version of a tool whose author names none.
DEF_VER = "V1.0"
TOOL, SERVER = "tool", "mcp"
PRIVATE, SHARED = "private", "shared"


def _now() -> datetime:
    return datetime.now(UTC)


class ToolSchema(Base):
    """One version of a tool, or an MCP server.

    The two columns that may hold megabytes are read only where they are asked for.

    `is_deleted` is 0 for a live row and the row's own id for a deleted one: the unique key then admits one live row of
    a version and any number of deleted ones, whenever they were deleted.
    """

    __tablename__ = "tools_schema"
    __table_args__ = (
        UniqueConstraint("tool_id", "version", "is_deleted", name="unique_tool_version"),
        Index("ix_tools_schema_app", "app_id", "is_deleted", "tool_id"),
        # What was deleted, and when: nothing changes a row after that.
        Index("ix_tools_schema_deleted", "is_deleted", "update_at"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "tools"
    cache_key: ClassVar[str] = "tool_id"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    # app.id as decimal text, as in the system that this table comes from.
    app_id: Mapped[str] = mapped_column(String(32))
    tool_id: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(128))
    description: Mapped[str] = mapped_column(String(512), default="")
    # The document as JSON text, whatever it was written in; NULL for an MCP server.
    open_api_schema: Mapped[str | None] = mapped_column(MEDIUM_TEXT, deferred=True)
    create_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    update_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)
    mcp_server_url: Mapped[str | None] = mapped_column(String(255))
    # An MCP server's last answer to tools/list; NULL for a tool.
    schema: Mapped[Any] = mapped_column(JsonDocument(), nullable=True, deferred=True)
    version: Mapped[str] = mapped_column(String(32), default=DEF_VER, server_default=DEF_VER)
    is_deleted: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class ToolMeta(Base):
    """What all versions of a tool have in common. Whoever changes a version locks this row first.

    Parameters
    ----------
    latest_id
        The row of the newest live version, so that a listing is one look-up a tool; NULL while none is live.
    is_deleted
        0 while a version is live, else the row's own id.
    """

    __tablename__ = "tool_meta"
    __table_args__ = (
        UniqueConstraint("id"),
        Index("ix_tool_meta_app", "app_id", "kind", "is_deleted", "id"),
        Index("ix_tool_meta_visibility", "visibility", "kind", "is_deleted", "id"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[str] = "tools"
    cache_key: ClassVar[str] = "tool_id"
    tool_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, default=new_id)
    app_id: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(8))
    visibility: Mapped[str] = mapped_column(String(16), default=PRIVATE)
    latest_id: Mapped[int | None] = mapped_column(BigInteger)
    is_deleted: Mapped[int] = mapped_column(BigInteger, default=0)
    # Of an MCP server: how it was found to speak, `streamable_http` or `sse`, and the protocol's revision.
    transport: Mapped[str | None] = mapped_column(String(32))
    protocol_version: Mapped[str | None] = mapped_column(String(32))
    # Its name, version and instructions, as it said.
    server_info: Mapped[Any] = mapped_column(JsonDocument(), nullable=True)
    created_by: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)


class ToolDocument(Base):
    """What is known of a version's OpenAPI document without parsing it: for listings, and for entity tags.

    Parameters
    ----------
    operations
        A summary of each operation, in the document's order.
    origins
        Where its calls, and its requests for tokens, go: what a credential was given for.
    checksum
        SHA-256 hex of `open_api_schema`.
    """

    __tablename__ = "tool_document"
    __table_args__ = (MYSQL_TABLE,)
    cache_scope: ClassVar[str] = "tools"
    cache_key: ClassVar[str] = "tool_id"
    # tools_schema.id
    schema_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tool_id: Mapped[str] = mapped_column(String(32))
    operations: Mapped[Any] = mapped_column(JsonDocument())
    security_schemes: Mapped[Any] = mapped_column(JsonDocument())
    origins: Mapped[Any] = mapped_column(JsonDocument())
    checksum: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(Integer)


class ToolCredential(Base):
    """What one app calls a tool or an MCP server with: sealed, never returned."""

    __tablename__ = "tool_credential"
    __table_args__ = (Index("ix_tool_credential_tool", "tool_id"), MYSQL_TABLE)
    cache_scope: ClassVar[str] = "tools"
    cache_key: ClassVar[str] = "tool_id"
    app_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    tool_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    scheme: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    ciphertext: Mapped[str] = mapped_column(Text)
    updated_by: Mapped[int | None] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now, onupdate=_now)


class ToolExecution(Base):
    """One row per call. Arguments and answers are payloads and are not kept."""

    __tablename__ = "tool_execution"
    __table_args__ = (
        UniqueConstraint("execution_id"),
        Index("ix_tool_execution_tool", "tool_id", "app_id", "id"),
        Index("ix_tool_execution_started", "started_at"),
        MYSQL_TABLE,
    )
    cache_scope: ClassVar[None] = None
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, default=new_id)
    execution_id: Mapped[str] = mapped_column(String(26), default=new_ulid)
    tool_id: Mapped[str] = mapped_column(String(32))
    app_id: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[str] = mapped_column(String(32))
    # An operationId, or the name of an MCP server's tool.
    operation: Mapped[str] = mapped_column(String(128))
    outcome: Mapped[str] = mapped_column(String(16))
    error_code: Mapped[str | None] = mapped_column(String(64))
    # What the upstream answered, NULL where it did not.
    status: Mapped[int | None] = mapped_column(SmallInteger)
    duration_us: Mapped[int] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(String(64), default="")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=_now)
