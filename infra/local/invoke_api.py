"""The Invoke API in AWS's wire format, so that functions call each other with boto3, and the durable execution API.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import base64
import json
import logging
import re
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

from infra.local.durable import PREFIX, DurableRunner
from infra.local.invocation import MAX_EVENT_PAYLOAD, MAX_PAYLOAD, Invocation, InvocationRefused
from infra.local.service import LambdaService, parse_payload
from infra.local.signatures import is_signed
from infra.local.wire import HttpServer, Request, Response

_PATH = re.compile(r"/2015-03-31/functions/(?P<name>[^/]+)/invocations")
# `name`, `name:qualifier`, `account:function:name` and the full ARN, each with an optional qualifier.
_NAME = re.compile(
    r"(?:(?:arn:aws[a-z-]*:lambda:[a-z0-9-]+:)?\d{12}:function:)?(?P<name>[a-zA-Z0-9-_]+)(?::[a-zA-Z0-9$_-]+)?"
)
_EXECUTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class InvokeApi:
    """Serves POST /2015-03-31/functions/{name}/invocations to whoever signs with `credentials` (access key, secret).

    An invocation of a durable function starts an execution; the durable execution service itself, which has to run the
    handler, says so in a header. The paths under /2025-12-01/ are that service's.
    """

    def __init__(
        self,
        service: LambdaService,
        durable: DurableRunner | None,
        credentials: tuple[str, str],
        log: logging.Logger,
    ) -> None:
        self._service = service
        self._durable = durable
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
        if self._durable is not None and parts.path.startswith(PREFIX):
            self._check(request)
            return await self._durable.forward(request)
        if name is None or request.method != "POST":
            raise InvocationRefused(404, "ResourceNotFoundException", "Not found", Type="User")
        self._check(request)
        return await self._run(name["name"], parts.query, request)

    def _check(self, request: Request) -> None:
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
        if request.too_large:
            message = f"Request must be smaller than {MAX_PAYLOAD} bytes for the InvokeFunction operation"
            raise InvocationRefused(413, "RequestTooLargeException", message, Type="User")

    async def _run(self, name: str, query: str, request: Request) -> Response:
        kind = request.header("X-Amz-Invocation-Type") or "RequestResponse"
        invocation = Invocation(
            payload=parse_payload(request.body),
            tenant=request.header("X-Amz-Tenant-Id"),
            client_context=_client_context(request.header("X-Amz-Client-Context")),
            trace_id=request.header("X-Amzn-Trace-Id"),
        )
        headers = [("x-amzn-RequestId", invocation.request_id), ("Content-Type", "application/json")]
        if self._starts_execution(name, invocation, request):
            headers.append(
                ("X-Amz-Durable-Execution-Arn", await self._begin(name, kind, invocation, request))
            )
            return Response(202, headers)
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

    def _starts_execution(self, name: str, invocation: Invocation, request: Request) -> bool:
        pool = self._service.admit(name, invocation, MAX_PAYLOAD)
        return pool.function.durable and request.header("X-Dex-Handler-Invoke") != "true"

    async def _begin(self, name: str, kind: str, invocation: Invocation, request: Request) -> str:
        if kind != "Event":
            # As AWS answers where ExecutionTimeout is longer than a connection lives.
            message = (
                "A durable function with an execution timeout of more than 15 minutes is invoked as an Event"
            )
            raise InvocationRefused(400, "InvalidParameterValueException", message, Type="User")
        self._service.admit(name, invocation, MAX_EVENT_PAYLOAD)
        execution = request.header("X-Amz-Durable-Execution-Name") or str(uuid4())
        if not _EXECUTION_NAME.fullmatch(execution):
            message = "DurableExecutionName must match [a-zA-Z0-9-_]{1,64}"
            raise InvocationRefused(400, "InvalidParameterValueException", message, Type="User")
        if self._durable is None:
            raise RuntimeError("there is a durable function, and no durable execution service")
        return await self._durable.begin(name, execution, invocation.payload)


def _client_context(encoded: str | None) -> str | None:
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        raise InvocationRefused(
            400, "InvalidRequestContentException", "The client context is not base64", Type="User"
        ) from None
