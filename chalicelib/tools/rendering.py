"""How tools, MCP servers and what belongs to them leave the service: rows as JSON values."""

from __future__ import annotations

from typing import Any

from chalicelib.core.representation import timestamp
from chalicelib.tools.models import ToolCredential, ToolDocument, ToolExecution, ToolMeta, ToolSchema


def listed_tool(meta: ToolMeta, row: ToolSchema) -> dict[str, Any]:
    """Return what a listing shows of a tool: its newest version."""
    return {
        "toolId": meta.tool_id,
        "appId": str(meta.app_id),
        "name": row.name,
        "description": row.description,
        "version": row.version,
        "visibility": meta.visibility,
        "createdAt": timestamp(meta.created_at),
        "updatedAt": timestamp(row.update_at),
    }


def tool(meta: ToolMeta, row: ToolSchema, document: ToolDocument) -> dict[str, Any]:
    """Return the resource of a tool in one version; its document stands in `checksum` and `size`."""
    return {
        **listed_tool(meta, row),
        "operations": document.operations,
        "securitySchemes": document.security_schemes,
        "checksum": document.checksum,
        "size": document.size,
    }


def version(row: ToolSchema, document: ToolDocument) -> dict[str, Any]:
    """Return what a listing shows of a version."""
    return {
        "toolId": row.tool_id,
        "version": row.version,
        "name": row.name,
        "description": row.description,
        "operationCount": len(document.operations),
        "checksum": document.checksum,
        "size": document.size,
        "createdAt": timestamp(row.create_at),
        "updatedAt": timestamp(row.update_at),
    }


def server(meta: ToolMeta, row: ToolSchema) -> dict[str, Any]:
    """Return an MCP server; who it says it is, is not to be trusted."""
    return {
        "serverId": meta.tool_id,
        "appId": str(meta.app_id),
        "name": row.name,
        "description": row.description,
        "url": row.mcp_server_url,
        "visibility": meta.visibility,
        "transport": meta.transport,
        "protocolVersion": meta.protocol_version,
        "serverInfo": meta.server_info,
        "createdAt": timestamp(meta.created_at),
        "updatedAt": timestamp(row.update_at),
    }


def credential(row: ToolCredential) -> dict[str, Any]:
    """Return a credential: what it is for, nothing of its value."""
    return {"scheme": row.scheme, "kind": row.kind, "updatedAt": timestamp(row.updated_at)}


def execution(row: ToolExecution) -> dict[str, Any]:
    """Return one call; its arguments and its answer are not kept."""
    return {
        "executionId": row.execution_id,
        "toolId": row.tool_id,
        "version": row.version,
        "operation": row.operation,
        "outcome": row.outcome,
        "errorCode": row.error_code,
        "status": row.status,
        "durationMs": row.duration_us / 1000,
        "requestId": row.request_id,
        "startedAt": timestamp(row.started_at),
    }
