"""How flows, their versions and licences leave the service: rows as JSON values."""

from __future__ import annotations

from typing import Any

from chalicelib.core.representation import timestamp
from chalicelib.flows.dao import PublishedFlow
from chalicelib.flows.models import Flow, License


def listed_flow(row: Flow) -> dict[str, Any]:
    """Return what a listing shows of a flow: its draft, without what may be large."""
    return {
        "flowId": str(row.id),
        "appId": row.app_id,
        "name": row.name,
        "description": row.description,
        "source": row.source,
        "revision": row.revision,
        "checksum": row.checksum,
        "createdAt": timestamp(row.create_at),
        "updatedAt": timestamp(row.update_at),
    }


def flow(row: Flow) -> dict[str, Any]:
    """Return the resource of a flow's draft; its data stands in `checksum`."""
    return {**listed_flow(row), "warnings": row.warnings or []}


def tagged(flow_id: int, revision: int) -> dict[str, Any]:
    """Return what the entity tag of a draft is made of: every change of it counts its revision up, and five megabytes
    need not be hashed while the row is locked."""
    return {"flowId": str(flow_id), "revision": revision}


def version(row: Flow) -> dict[str, Any]:
    """Return a published version, or one that was taken off, without its data."""
    return {
        "flowId": str(row.group_id),
        "version": row.version,
        "name": row.name,
        "description": row.description,
        "isPublished": row.status == 1,
        "releaseStatus": row.release_status,
        "releaseApi": row.release_api,
        "operations": row.operations or 0,
        "checksum": row.checksum,
        "createdAt": timestamp(row.create_at),
        "updatedAt": timestamp(row.update_at),
    }


def published(found: PublishedFlow) -> dict[str, Any]:
    """Return what a caller must know to run a version."""
    return {
        "flowId": str(found.flow_id),
        "version": found.version,
        "name": found.name,
        "description": found.description,
        "inputSchema": found.input_schema,
        "checksum": found.checksum,
    }


def comparison(row: Flow) -> dict[str, Any]:
    """Return a comparison; its data stands in `checksum`."""
    return {
        "flowId": str(row.group_id),
        "version": row.version,
        "name": row.name,
        "description": row.description,
        "checksum": row.checksum,
        "warnings": row.warnings or [],
        "createdAt": timestamp(row.create_at),
        "updatedAt": timestamp(row.update_at),
    }


def license_of(row: License, alias_id: str) -> dict[str, Any]:
    """Return the licence of an app."""
    return {
        "flowId": str(row.group_id),
        "aliasId": alias_id,
        "status": row.status,
        "createdAt": timestamp(row.create_at),
        "updatedAt": timestamp(row.update_at),
    }
