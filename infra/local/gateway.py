"""The HTTP front: an API Gateway REST API on a loopback port."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from uuid import uuid4

from infra.functions import GATEWAY_TIMEOUT_S, FunctionTable, MethodNotRouted, RouteNotFound
from infra.local.invocation import MAX_PAYLOAD, Invocation, InvocationRefused, Outcome
from infra.local.proxy import MalformedResult, http_response, proxy_event
from infra.local.service import LambdaService
from infra.local.wire import HttpServer, Request, Response

MAX_BODY = 10 * 1024 * 1024

_TITLES = {
    400: ("request.malformed", "Malformed request"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("request.too_large", "Too large"),
    429: ("rate_limited", "Too many requests"),
    431: ("request.too_large", "Too large"),
    500: ("internal", "Internal error"),
    502: ("upstream.failed", "Upstream failed"),
    504: ("upstream.timeout", "Upstream timed out"),
}


class Gateway:
    """Turns requests into proxy events and results into responses."""

    def __init__(
        self, table: FunctionTable, service: LambdaService, access_log: Path, log: logging.Logger
    ) -> None:
        self._table = table
        self._service = service
        self._log = log
        self._access = access_log.open("a", buffering=1)
        self._server = HttpServer(self._serve, max_body=MAX_BODY, log=log, refusal=_refusal)
        self._running: set[asyncio.Task[Outcome]] = set()
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen on 127.0.0.1.

        Raises
        ------
        OSError
            The port is taken.
        """
        self.port = await self._server.start(port)

    def stop_listening(self) -> None:
        """Refuse new connections."""
        self._server.stop_listening()

    async def close(self) -> None:
        """End every connection."""
        await self._server.close()
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._access.close()

    async def _serve(self, request: Request) -> Response:
        began = time.perf_counter()
        request_id = str(uuid4())
        path, _, query = request.target.partition("?")
        response = await self._answer(request, path, query, request_id)
        took = (time.perf_counter() - began) * 1000
        self._access.write(
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {request.method} {path} "
            f"{response.status} {took:.1f}ms {request_id}\n"
        )
        return Response(response.status, [*response.headers, ("x-amzn-RequestId", request_id)], response.body)

    async def _answer(self, request: Request, path: str, query: str, request_id: str) -> Response:
        try:
            function, resource_path, path_parameters = self._table.route(request.method, path)
        except RouteNotFound:
            return problem(404, "There is no such resource.", path, request_id)
        except MethodNotRouted as error:
            allow = ("Allow", ", ".join(error.allowed))
            return problem(405, "The resource does not have this method.", path, request_id, allow)
        if request.too_large:
            return problem(413, f"A request holds at most {MAX_BODY} bytes.", path, request_id)
        event = proxy_event(
            request,
            path=path,
            query=query,
            resource_path=resource_path,
            path_parameters=path_parameters,
            binary_types=self._table.binary_types,
            request_id=request_id,
        )
        payload = json.dumps(event).encode()
        if len(payload) > MAX_PAYLOAD:
            detail = f"A function takes at most {MAX_PAYLOAD} bytes, base64 and headers included."
            return problem(413, detail, path, request_id)
        invocation = Invocation(payload, trace_id=request.header("X-Amzn-Trace-Id"))
        return await self._integrate(function.name, invocation, path, request_id)

    async def _integrate(self, name: str, invocation: Invocation, path: str, request_id: str) -> Response:
        # The function goes on when the gateway, or the client, has given up: as on AWS.
        task = asyncio.create_task(self._service.invoke(name, invocation))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        done, _ = await asyncio.wait({task}, timeout=GATEWAY_TIMEOUT_S)
        if not done:
            task.add_done_callback(_retrieve)
            return problem(504, "The function did not answer in time.", path, request_id)
        try:
            outcome = task.result()
        except InvocationRefused as refusal:
            status = refusal.status if refusal.status in (413, 429) else 500
            retry = [("Retry-After", "1")] if status == 429 else []
            return problem(status, "The function cannot be run now.", path, request_id, *retry)
        if outcome.error is not None:
            self._log.error(
                "%s %s: %s", name, invocation.request_id, outcome.payload[:2000].decode(errors="replace")
            )
            return problem(502, "The function failed.", path, request_id)
        try:
            return http_response(outcome.payload)
        except MalformedResult as error:
            self._log.error("%s %s: malformed proxy response: %s", name, invocation.request_id, error)
            return problem(502, "The function's answer is malformed.", path, request_id)


def problem(status: int, detail: str, path: str, request_id: str, *headers: tuple[str, str]) -> Response:
    """Return an error of the gateway's own in the shape of the service's (RFC 9457)."""
    code, title = _TITLES[status]
    document = {
        "type": f"urn:hotplug:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path,
        "code": code,
        "requestId": request_id,
    }
    return Response(
        status, [("Content-Type", "application/problem+json"), *headers], json.dumps(document).encode()
    )


def _refusal(status: int, detail: str) -> Response:
    return problem(status, detail, "/", str(uuid4()))


def _retrieve(task: asyncio.Task[Outcome]) -> None:
    """Take the outcome that nobody waits for any more, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()
