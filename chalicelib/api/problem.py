"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

from typing import Any

from chalicelib.core.errors import HotplugError

MEDIA_TYPE = "application/problem+json"

PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code", "requestId"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:hotplug:problem:"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "requestId": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "rule", "message"],
                "properties": {
                    "pointer": {"type": "string"},
                    "rule": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


def problem(error: HotplugError, *, instance: str, request_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (document, headers) of an error.

    Parameters
    ----------
    instance
        Path of the request.
    request_id
        Finds the request in the log.
    """
    document: dict[str, Any] = {
        "type": f"urn:hotplug:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "requestId": request_id,
    }
    if error.errors:
        document["errors"] = [violation.as_dict() for violation in error.errors]
    # An extension must not overwrite a standard member.
    document = {**error.extensions, **document}
    headers = {"Content-Type": MEDIA_TYPE}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 405 and "allow" in error.extensions:
        headers["Allow"] = ", ".join(error.extensions["allow"])
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="hotplug"'
    return document, headers
