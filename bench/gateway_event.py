"""Requests as API Gateway's REST proxy hands them to a function, built before the clock starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from chalice.app import Chalice

PLUGIN = "/api/v1/plugins/{pluginId}"


def gateway_event(
    method: str,
    resource: str,
    parameters: Mapping[str, str] | None = None,
    *,
    credential: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return one event; `resource` is the path with its variables, `body` a JSON value."""
    sent = {"accept": "application/json", **(headers or {})}
    if credential is not None:
        sent["authorization"] = f"Bearer {credential}"
    if body is not None:
        sent["content-type"] = "application/json"
    path = resource.format_map(parameters or {})
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": dict(parameters) if parameters else None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": resource,
            "path": path,
            "httpMethod": method,
            "requestId": str(uuid4()),
            "stage": "api",
            "identity": {"sourceIp": "192.0.2.1"},
        },
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def caller(app: Chalice, event: dict[str, Any], expected: int = 200) -> Callable[[], dict[str, Any]]:
    """Return what sends `event` once.

    Raises
    ------
    RuntimeError
        From what is returned, where the answer has another status: a refusal is fast, and measures nothing.
    """

    def call() -> dict[str, Any]:
        answer: dict[str, Any] = app(event, None)
        if answer["statusCode"] != expected:
            raise RuntimeError(f"{event['path']} answered {answer['statusCode']}: {answer['body'][:300]}")
        return answer

    return call
