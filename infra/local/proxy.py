"""API Gateway's proxy integration: the event made from a request, and the response made from a function's result.

https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from infra.local.environment import ACCOUNT
from infra.local.wire import Request, Response

STAGE = "api"
API_ID = "local"

# These belong to one connection, not to the message (RFC 9110 §7.6.1); the server sets the length itself.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
    }
)
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class MalformedResult(ValueError):
    """The function's result is not a proxy response; API Gateway answers 502."""


def proxy_event(
    request: Request,
    *,
    path: str,
    query: str,
    resource_path: str,
    path_parameters: Mapping[str, str],
    binary_types: Collection[str],
    request_id: str,
) -> dict[str, Any]:
    """Return the event of a REST API's proxy integration (payload format 1.0)."""
    multi = _multi_headers(request)
    queries = _grouped(parse_qsl(query, keep_blank_values=True))
    body, encoded = _body(request, binary_types)
    now = time.time()
    return {
        "resource": resource_path,
        "path": path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in multi.items()},
        "multiValueHeaders": multi,
        "queryStringParameters": {name: values[-1] for name, values in queries.items()} or None,
        "multiValueQueryStringParameters": queries or None,
        "pathParameters": dict(path_parameters) or None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": API_ID,
            "stage": STAGE,
            "protocol": "HTTP/1.1",
            "resourceId": resource_path,
            "resourcePath": resource_path,
            "path": path,
            "httpMethod": request.method,
            "requestId": request_id,
            "extendedRequestId": request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "requestTimeEpoch": int(now * 1000),
            "identity": {"sourceIp": request.peer, "userAgent": request.header("user-agent")},
        },
        "body": body,
        "isBase64Encoded": encoded,
    }


def http_response(payload: bytes) -> Response:
    """Return the response that a function's result describes.

    Raises
    ------
    MalformedResult
    """
    try:
        result = json.loads(payload)
    except ValueError:
        raise MalformedResult("not JSON") from None
    status = result.get("statusCode") if isinstance(result, dict) else None
    if isinstance(status, str) and status.isdigit():
        status = int(status)
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise MalformedResult("no valid statusCode")
    headers = _result_headers(result)
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return Response(status, headers, _result_body(result))


def _multi_headers(request: Request) -> dict[str, list[str]]:
    """Return the headers with all their values; names that differ in case only are one, spelled as first seen."""
    spelling: dict[str, str] = {}
    pairs = [
        (spelling.setdefault(name.lower(), name), value)
        for name, value in [
            *request.headers,
            ("X-Forwarded-For", request.peer),
            ("X-Forwarded-Proto", "http"),
        ]
        if name.lower() not in _HOP_BY_HOP
    ]
    return _grouped(pairs)


def _grouped(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


def _body(request: Request, binary_types: Collection[str]) -> tuple[str | None, bool]:
    if not request.body:
        return None, False
    media_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type in binary_types or "*/*" in binary_types:
        return base64.b64encode(request.body).decode(), True
    # API Gateway hands text on as UTF-8; what is not becomes U+FFFD.
    return request.body.decode("utf-8", "replace"), False


def _result_headers(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    single, multi = (
        {} if result.get(name) is None else result[name] for name in ("headers", "multiValueHeaders")
    )
    if not isinstance(single, dict) or not isinstance(multi, dict):
        raise MalformedResult("headers are not an object")
    named = {name.lower() for name in multi}
    headers = [(name, value) for name, value in single.items() if name.lower() not in named]
    for name, values in multi.items():
        if not isinstance(values, list):
            raise MalformedResult("multiValueHeaders does not hold lists")
        headers += [(name, value) for value in values]
    clean = []
    for name, value in headers:
        if name.lower() in _HOP_BY_HOP:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(value, str | int | float) or not _HEADER_NAME.fullmatch(name):
            raise MalformedResult("a header is malformed")
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            # A line break would let a value write headers and bodies of its own.
            raise MalformedResult("a header holds control characters")
        clean.append((name, text))
    return clean


def _result_body(result: Mapping[str, Any]) -> bytes:
    body = result.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise MalformedResult("the body is not text")
    if not result.get("isBase64Encoded"):
        return body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise MalformedResult("the body is not base64") from None
