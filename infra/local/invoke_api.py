"""The Invoke API in AWS's wire format, so that functions call each other with boto3.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import base64
import json
import logging
import re
from urllib.parse import parse_qs, unquote, urlsplit

from infra.local.invocation import MAX_PAYLOAD, Invocation, InvocationRefused
from infra.local.service import LambdaService, parse_payload
from infra.local.signatures import is_signed
from infra.local.wire import HttpServer, Request, Response

_PATH = re.compile(r"/2015-03-31/functions/(?P<name>[^/]+)/invocations")
# `name`, `name:qualifier`, `account:function:name` and the full ARN, each with an optional qualifier.
_NAME = re.compile(
    r"(?:(?:arn:aws[a-z-]*:lambda:[a-z0-9-]+:)?\d{12}:function:)?(?P<name>[a-zA-Z0-9-_]+)(?::[a-zA-Z0-9$_-]+)?"
)


class InvokeApi:
    """Serves POST /2015-03-31/functions/{name}/invocations to whoever signs with `credentials` (access key, secret)."""

    def __init__(self, service: LambdaService, credentials: tuple[str, str], log: logging.Logger) -> None:
        self._service = service
        self._credentials = credentials
        self._server = HttpServer(self._serve, max_body=MAX_PAYLOAD, log=log)
        self.url = ""

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self.url = f"http://127.0.0.1:{await self._server.start()}"

    async def close(self) -> None:
        """Stop serving."""
        await self._server.close()

    async def _serve(self, request: Request) -> Response:
        try:
            return await self._invoke(request)
        except InvocationRefused as refusal:
            body = json.dumps({**refusal.extra, "Message": refusal.message, "message": refusal.message})
            headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", refusal.code)]
            return Response(refusal.status, headers, body.encode())

    async def _invoke(self, request: Request) -> Response:
        parts = urlsplit(request.target)
        match = _PATH.fullmatch(parts.path)
        name = _NAME.fullmatch(unquote(match["name"])) if match else None
        if name is None or request.method != "POST":
            raise InvocationRefused(404, "ResourceNotFoundException", "Not found", Type="User")
        self._check_signed(request)
        if request.too_large:
            message = f"Request must be smaller than {MAX_PAYLOAD} bytes for the InvokeFunction operation"
            raise InvocationRefused(413, "RequestTooLargeException", message, Type="User")
        return await self._run(name["name"], parts.query, request)

    def _check_signed(self, request: Request) -> None:
        # What runs without credentials (the plugin runtimes) may invoke nothing, here as on AWS.
        if request.header("authorization") is None:
            raise InvocationRefused(
                403, "MissingAuthenticationTokenException", "Missing Authentication Token", Type="User"
            )
        # A body that is too large was not kept, so no signature of it can be checked; it is refused as that.
        if not request.too_large and not is_signed(request, self.url, self._credentials):
            raise InvocationRefused(
                403,
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided.",
                Type="User",
            )

    async def _run(self, name: str, query: str, request: Request) -> Response:
        kind = request.header("X-Amz-Invocation-Type") or "RequestResponse"
        invocation = Invocation(
            payload=parse_payload(request.body),
            tenant=request.header("X-Amz-Tenant-Id"),
            client_context=_client_context(request.header("X-Amz-Client-Context")),
            trace_id=request.header("X-Amzn-Trace-Id"),
        )
        headers = [("x-amzn-RequestId", invocation.request_id), ("Content-Type", "application/json")]
        if kind == "Event":
            self._service.submit(name, invocation)
            return Response(202, headers)
        if kind != "RequestResponse":
            raise InvocationRefused(
                400,
                "InvalidParameterValueException",
                f"{kind} invocations are not supported here",
                Type="User",
            )
        outcome = await self._service.invoke(name, invocation)
        qualifier = parse_qs(query).get("Qualifier", ["$LATEST"])[0]
        headers.append(("X-Amz-Executed-Version", qualifier))
        if outcome.error is not None:
            headers.append(("X-Amz-Function-Error", outcome.error))
        return Response(200, headers, outcome.payload)


def _client_context(encoded: str | None) -> str | None:
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        raise InvocationRefused(
            400, "InvalidRequestContentException", "The client context is not base64", Type="User"
        ) from None
