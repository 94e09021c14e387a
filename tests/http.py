"""An HTTP client that calls the application in this process, with the events that API Gateway's REST proxy sends."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from chalice.app import Chalice

from chalicelib.core import process
from chalicelib.core.keys import master_keys


class NoRoute(LookupError):
    """API Gateway would answer itself: it has no such resource and method."""


@dataclass(frozen=True)
class Response:
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        """The body as a JSON value, None where it is empty."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True)
class Context:
    """What Lambda tells a function about its invocation."""

    aws_request_id: str
    ends_at: float

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.ends_at - time.monotonic()) * 1000))


@dataclass(frozen=True)
class Client:
    """Calls an application.

    Parameters
    ----------
    app
        The Chalice application.
    credential
        `apiKey:apiSecret`, sent as a bearer token unless a request says otherwise.
    """

    app: Chalice
    credential: str | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = ...,
        headers: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        form: Mapping[str, str] | None = None,
        credential: str | EllipsisType | None = ...,
        content: bytes | None = None,
        timeout_s: float = 29,
    ) -> Response:
        """Send one request.

        Parameters
        ----------
        path
            As on the wire: percent-encoded, with the query string.
        json, content
            The body as a JSON value, or as bytes.
        files, form
            Parts of a multipart form: name → (file name, content), name → text.
        credential
            Instead of the client's; None sends none.
        """
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        who = self.credential if credential is ... else credential
        if who is not None:
            sent.setdefault("authorization", f"Bearer {who}")
        if files is not None or form is not None:
            boundary = uuid4().hex
            content = _multipart(boundary, form or {}, files or {})
            sent.setdefault("content-type", f"multipart/form-data; boundary={boundary}")
        elif json is not ...:
            content = _dumped(json)
            sent.setdefault("content-type", "application/json")
        event = self._event(method, path, sent, content)
        context = Context(event["requestContext"]["requestId"], time.monotonic() + timeout_s)
        result = self.app(event, context)
        return _response(result)

    def get(self, path: str, **options: Any) -> Response:
        return self.request("GET", path, **options)

    def post(self, path: str, json: Any = ..., **options: Any) -> Response:
        return self.request("POST", path, json=json, **options)

    def put(self, path: str, json: Any = ..., **options: Any) -> Response:
        return self.request("PUT", path, json=json, **options)

    def patch(self, path: str, json: Any = ..., **options: Any) -> Response:
        return self.request("PATCH", path, json=json, **options)

    def delete(self, path: str, **options: Any) -> Response:
        return self.request("DELETE", path, **options)

    def _event(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes | None
    ) -> dict[str, Any]:
        path, _, query = target.partition("?")
        resource, parameters = _route(self.app, method, path)
        queries = parse_qs(query, keep_blank_values=True)
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        binary = content is not None and media_type in self.app.api.binary_types
        body: str | None = None
        if content is not None:
            body = base64.b64encode(content).decode() if binary else content.decode("utf-8", "replace")
        return {
            "resource": resource,
            "path": path,
            "httpMethod": method,
            "headers": dict(headers),
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "queryStringParameters": {name: values[-1] for name, values in queries.items()} or None,
            "multiValueQueryStringParameters": queries or None,
            # Undecoded, as API Gateway hands them on.
            "pathParameters": parameters or None,
            "stageVariables": None,
            "requestContext": {
                "resourcePath": resource,
                "path": path,
                "httpMethod": method,
                "requestId": str(uuid4()),
                "stage": "api",
                "identity": {"sourceIp": "192.0.2.1"},
            },
            "body": body,
            "isBase64Encoded": binary,
        }


def _route(app: Chalice, method: str, path: str) -> tuple[str, dict[str, str]]:
    matches = []
    for resource, methods in app.routes.items():
        pattern = "/".join(
            f"(?P<{segment[1:-1]}>[^/]+)" if segment.startswith("{") else re.escape(segment)
            for segment in resource.split("/")
        )
        found = re.fullmatch(pattern, path)
        if found and method in methods:
            # Static segments win over variables.
            matches.append((len(found.groupdict()), resource, found.groupdict()))
    if not matches:
        raise NoRoute(f"{method} {path}")
    _, resource, parameters = min(matches, key=lambda match: match[0])
    return resource, parameters


def _multipart(boundary: str, form: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]) -> bytes:
    parts = []
    for name, text in form.items():
        parts.append((f'Content-Disposition: form-data; name="{name}"', text.encode()))
    for name, (filename, content) in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        parts.append((f"{head}\r\nContent-Type: application/octet-stream", content))
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts)
    return body + f"--{boundary}--\r\n".encode()


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def _response(result: Mapping[str, Any]) -> Response:
    headers = {name.lower(): value for name, value in result["headers"].items()}
    body = result.get("body") or ""
    if result.get("isBase64Encoded"):
        body = base64.b64decode(body).decode()
    return Response(int(result["statusCode"]), headers, body)


@dataclass
class Deployment:
    """The application on one database, in this process."""

    client: Client
    admin: str
    url: str
    apps: dict[str, dict[str, str]] = field(default_factory=dict)

    def credential(self, alias_id: str, role: str) -> str:
        """Return `apiKey:apiSecret` of a role in an app; both are made when first asked for."""
        known = self.apps.get(alias_id)
        if known is None:
            known = self.apps[alias_id] = {}
            self.client.post("/api/v1/apps", {"aliasId": alias_id, "name": alias_id[:30]})
        if role not in known:
            made = self.client.post(f"/api/v1/apps/{alias_id}/credentials", {"role": role}).json
            known[role] = f"{made['apiKey']}:{made['apiSecret']}"
        return known[role]


def _forget() -> None:
    process.forget()
    master_keys.use(None)


@contextmanager
def settings(**values: str) -> Iterator[None]:
    """Run under other settings (`HOTPLUG_RATE="1"`), with everything that a process keeps made anew."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    _forget()
    try:
        yield
    finally:
        _forget()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def deployed(url: str, app: Chalice | None = None, **values: str) -> Iterator[Deployment]:
    """Serve an application (the whole of Hotplug by default) on a fresh schema in the empty database `url`."""
    from chalicelib.apps.service import ensure_first_admin
    from tests.conftest import create_schema

    # A test that counts no requests must not be refused for sending many.
    unlimited = {"HOTPLUG_RATE": "100000", "HOTPLUG_BURST": "100000"}
    create_schema(url).close()
    with settings(**{"HOTPLUG_DATABASE_URL": url, **unlimited, **values}):
        admin = process.database().run(ensure_first_admin)
        assert admin is not None
        yield Deployment(Client(app or hotplug(), admin), admin, url)


def hotplug() -> Chalice:
    """Return the application as it is deployed, all endpoints in one function."""
    import app

    return app.app
