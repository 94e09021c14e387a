"""The one decorator that every handler of the HTTP API uses.

It declares what the endpoint needs and returns, and does in one order what every request goes through: request id,
cache refresh, authentication, rate, role, path, query, body, idempotency, handler, entity tag, answer. The OpenAPI
document and the function table are generated from the same declarations, so they cannot drift.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chalice.app import Blueprint, Response

from chalicelib.api import body as bodies
from chalicelib.api.parameters import check_declared, path_parameters, query_parameters
from chalicelib.api.problem import problem
from chalicelib.api.request import Answer, Request
from chalicelib.apps.authentication import LastUse, authenticate
from chalicelib.core import audit, process, telemetry
from chalicelib.core.answers import fits
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import (
    BadRequest,
    Forbidden,
    HotplugError,
    PreconditionRequired,
    UpstreamFailed,
    UpstreamTimeout,
    Violation,
)
from chalicelib.core.hotcache import HotCache
from chalicelib.core.representation import canonical, entity_tag, matches_if_none_match

BASE = "/api/v1"
# The gateway ends a request after 29 s.
TIMEOUT_S = 29
IDEMPOTENCY_KEY = "^[!-~]{1,128}$"
# RFC 9110 §8.8.3: a list of entity tags, or `*`.
IF_MATCH = '^([*]|(W/)?"[!#-~]{0,128}"(, ?(W/)?"[!#-~]{0,128}"){0,15})$'
IF_MATCH_RULES = ("none", "honoured", "required")
JSON = "application/json"
OBJECT_ID_LIMIT = 128  # audit_log.object_id
Handler = Callable[[Request], Answer | dict[str, Any] | list[Any]]


@dataclass(frozen=True)
class Endpoint:
    """One declared endpoint; see `endpoint` for the fields."""

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    role: str | None
    query: Mapping[str, Any]
    body: Mapping[str, Any] | None
    body_optional: bool
    raw_body: bool
    multipart: Mapping[str, Any] | None
    max_body_bytes: int
    returns: Mapping[int, Mapping[str, Any] | None]
    errors: tuple[int, ...]
    idempotent: bool
    secret_answer: bool
    timeout_s: int
    memory_mb: int
    rights: tuple[str, ...]
    if_match: str
    media_type: str
    tags: tuple[str, ...] = field(default=())


ENDPOINTS: list[Endpoint] = []
LAST_USE = LastUse()


def endpoint(
    blueprint: Blueprint,
    method: str,
    path: str,
    *,
    role: str | None,
    summary: str,
    returns: Mapping[int, Mapping[str, Any] | None],
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    body_optional: bool = False,
    raw_body: bool = False,
    multipart: Mapping[str, Any] | None = None,
    max_body_bytes: int = bodies.DEFAULT_LIMIT,
    errors: tuple[int, ...] = (),
    idempotent: bool = False,
    secret_answer: bool = False,
    timeout_s: int = TIMEOUT_S,
    memory_mb: int = 512,
    rights: tuple[str, ...] = ("database",),
    if_match: str = "none",
    media_type: str = JSON,
    base: str = BASE,
) -> Callable[[Handler], Handler]:
    """Declare an endpoint.

    Parameters
    ----------
    role
        The least role that may call it; None for an open endpoint, which gets no caller.
    returns
        Status → JSON Schema of the body, None for an empty one.
    query, body, multipart
        JSON Schemas: of each query parameter by name, of the JSON body, of the form's text fields.
    raw_body
        The body is handed over as bytes, of which `body` is only the description: for a protocol that answers malformed
        ones in its own way.
    max_body_bytes
        Larger bodies are 413.
    errors
        Statuses of problems beyond those that follow from the other arguments.
    idempotent
        Honours Idempotency-Key.
    secret_answer
        The answer shows a secret once: it is not stored, its replay is 409.
    timeout_s, memory_mb, rights
        What the endpoint's own function is deployed with.
    if_match
        `none`, `honoured` or `required`.
    media_type
        Of a successful answer. Where it is not JSON, the body is a text that is sent as it is.
    base
        What stands before `path`.
    """
    check_declared(query or {})
    if if_match not in IF_MATCH_RULES:
        raise ValueError(f"if_match is one of {IF_MATCH_RULES}")
    if body_optional and body is not None and (body.get("required") or body.get("minProperties")):
        raise ValueError("an optional body must allow {}")

    def declare(handler: Handler) -> Handler:
        name = f"{handler.__module__.rpartition('.')[2]}.{handler.__name__}"
        declared = Endpoint(
            name=name, method=method, path=base + path, handler=handler, summary=summary, role=role,
            query=query or {}, body=body, body_optional=body_optional, raw_body=raw_body, multipart=multipart,
            max_body_bytes=max_body_bytes, returns=returns, errors=errors, idempotent=idempotent,
            secret_answer=secret_answer, timeout_s=timeout_s, memory_mb=memory_mb, rights=rights, if_match=if_match,
            media_type=media_type, tags=(name.partition(".")[0],),
        )  # fmt: skip
        ENDPOINTS.append(declared)

        def view(**raw_path: str) -> Response:
            context = getattr(blueprint, "lambda_context", None)
            return _respond(declared, blueprint.current_request, raw_path, context)

        view.__name__ = handler.__name__
        blueprint.route(declared.path, methods=[method], content_types=["*/*"], name=name.replace(".", "_"))(
            view
        )
        return handler

    return declare


def _respond(declared: Endpoint, http: Any, raw_path: Mapping[str, str], context: Any) -> Response:
    request_id = str(http.context.get("requestId") or getattr(context, "aws_request_id", ""))
    instance = str(http.context.get("path") or http.path)
    telemetry.bind(request_id=request_id, route=declared.name)
    try:
        answer = _handle(declared, http, raw_path, context, request_id)
        response = _success(declared, answer, http.headers)
    except HotplugError as error:
        if error.status >= 500:
            telemetry.exception("request.failed", error, status=error.status, level=_level(error))
        response = _failure(error, instance, request_id)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a 500 that says nothing but its id
        telemetry.exception("request.crashed", error)
        response = _failure(HotplugError("Something went wrong on our side."), instance, request_id)
    finally:
        telemetry.flush()
    response.headers["X-Request-Id"] = request_id
    return response


def _level(error: HotplugError) -> int:
    """A plugin, tool or server of somebody's that fails is nobody's here to mend."""
    return logging.WARNING if isinstance(error, UpstreamFailed | UpstreamTimeout) else logging.ERROR


def _handle(
    declared: Endpoint, http: Any, raw_path: Mapping[str, str], context: Any, request_id: str
) -> Answer:
    if declared.role is None:
        return _call(declared, _open_request(declared, http, request_id))
    began = datetime.now(UTC)
    cache = process.cache()
    cache.refresh()
    caller = authenticate(cache, http.headers.get("authorization"), request_id)
    telemetry.bind(app=caller.alias_id)
    process.rate_limit().take(caller.app_id)
    if not caller.may(declared.role):
        raise Forbidden(f"This needs the role {declared.role}.", code="auth.role")
    request = _request(declared, http, raw_path, caller)
    key = _idempotency_key(declared, http.headers)
    answer = _call(declared, request) if key is None else _call_once(declared, request, key, context)
    if caller.audits_reads and declared.method == "GET":
        _audit_read(declared, request)
    scopes = ("apps", "plugins")
    beat = process.heartbeat().beat(
        process.INSTANCE_ID,
        process.FUNCTION_NAME,
        versions={scope: cache.version(scope)[0] for scope in scopes},
        seen_at=began,
    )
    if beat and not telemetry.is_cold_start():
        _report_load(request.database, cache)
    LAST_USE.note(request.database, caller.credential_id)
    return answer


def _report_load(database: DatabaseService, cache: HotCache) -> None:
    """Report what this process asked of the database since it last wrote its heartbeat.

    Not on a cold start: metrics cost 50 ms of import.
    """
    load = database.load.take()
    telemetry.metric("database.connections", load.connections)
    telemetry.metric("database.statements", load.statements)
    telemetry.metric("database.busy", load.busy_ms, "Milliseconds")
    telemetry.metric("cache.reloads", cache.take_reloads())


def _audit_read(declared: Endpoint, request: Request) -> None:
    object_type, object_id = declared.tags[0], request.url_path[:OBJECT_ID_LIMIT]
    request.database.run(
        lambda session: audit.record(session, request.caller, "read", object_type, object_id)
    )


def _open_request(declared: Endpoint, http: Any, request_id: str) -> Request:
    nobody = Caller(0, "", 0, "viewer", request_id)
    if "database" not in declared.rights:
        # Its function, deployed by itself, is told of none.
        none: Any = None
        return Request(nobody, {}, {}, None, {}, http.headers, none, none, declared.path)
    return Request(nobody, {}, {}, None, {}, http.headers, process.database(), process.cache(), declared.path)


def _request(declared: Endpoint, http: Any, raw_path: Mapping[str, str], caller: Caller) -> Request:
    path = path_parameters(raw_path)
    query = query_parameters(http.to_original_event().get("multiValueQueryStringParameters"), declared.query)
    _check_if_match(declared, http.headers.get("if-match"))
    value, files = bodies.read(
        http.headers.get("content-type"),
        http.raw_body,
        schema=declared.body,
        optional=declared.body_optional,
        unread=declared.raw_body,
        form=declared.multipart,
        max_bytes=declared.max_body_bytes,
    )
    url_path = declared.path.format_map(path)
    return Request(
        caller, path, query, value, files, http.headers, process.database(), process.cache(), url_path
    )


def _call(declared: Endpoint, request: Request) -> Answer:
    result = declared.handler(request)
    return result if isinstance(result, Answer) else Answer(result)


def _check_if_match(declared: Endpoint, header: str | None) -> None:
    if declared.if_match == "none":
        return
    if header is None:
        if declared.if_match == "required":
            raise PreconditionRequired("Send If-Match with the ETag of what you change.")
        return
    if not re.fullmatch(IF_MATCH[1:-1], header):
        raise _bad_header("if-match", "precondition.syntax", 'a list of "entity tags", or *')


def _idempotency_key(declared: Endpoint, headers: Mapping[str, str]) -> str | None:
    key = headers.get("idempotency-key")
    if key is None or not declared.idempotent:
        return None
    if not re.fullmatch(IDEMPOTENCY_KEY[1:-1], key):
        raise _bad_header("idempotency-key", "idempotency.key", "1 to 128 visible ASCII characters")
    return key


def _bad_header(name: str, rule: str, message: str) -> BadRequest:
    errors = [Violation(f"/headers/{name}", rule, message)]
    return BadRequest(f"The header {name} does not hold.", code="request.header", errors=errors)


def _call_once(declared: Endpoint, request: Request, key: str, context: Any) -> Answer:
    from chalicelib.core.errors import Conflict
    from chalicelib.core.idempotency import run_once

    scope = [str(request.caller.app_id), declared.method, request.url_path, key]

    def work(complete: Any) -> dict[str, Any]:
        def store(session: Any, answer: dict[str, Any]) -> None:
            complete(session, {"secretShown": True} if declared.secret_answer else answer)

        request.complete = store
        answer = _call(declared, request)
        if not request.committed:
            raise AssertionError(
                f"{declared.name} answers without request.write: its key would not be stored"
            )
        return answer.stored()

    def remaining_ms() -> int:
        return (
            int(context.get_remaining_time_in_millis()) if context is not None else declared.timeout_s * 1000
        )

    stored, replayed = run_once(
        process.database(),
        key=scope,
        payload_digest=_payload_digest(request),
        remaining_ms=remaining_ms,
        work=work,
    )
    if replayed and "secretShown" in stored:
        raise Conflict(
            "This request was answered once, with a secret; it is not shown again.", code="secret_shown"
        )
    headers = {**stored["headers"], "Idempotency-Replayed": "true"} if replayed else stored["headers"]
    return Answer(stored["body"], stored["status"], headers)


def _payload_digest(request: Request) -> str:
    """A digest of what was asked, not of its bytes: a client that retries writes another multipart boundary."""
    import hashlib

    files = {
        name: [file.filename, hashlib.sha256(file.content).hexdigest()]
        for name, file in request.files.items()
    }
    return hashlib.sha256(canonical([request.body, request.query, files])).hexdigest()


def _success(declared: Endpoint, answer: Answer, request_headers: Mapping[str, str]) -> Response:
    headers: dict[str, str | list[str]] = {
        "Content-Type": declared.media_type,
        "Cache-Control": "no-store",
        **answer.headers,
    }
    if answer.body is None:
        headers.pop("Content-Type")
        return Response(body="", status_code=answer.status, headers=headers)
    if answer.status in (200, 201):
        tag = str(headers.get("ETag") or entity_tag(answer.body if answer.tagged is None else answer.tagged))
        headers["ETag"] = tag
        if declared.method == "GET" and matches_if_none_match(request_headers.get("if-none-match"), tag):
            headers.pop("Content-Type")
            return Response(body="", status_code=304, headers=headers)
    body = answer.body
    if declared.media_type == JSON:
        body = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    if not fits(body):
        # Lambda would end the invocation as failed, and tell nobody why.
        raise HotplugError("The answer is larger than one answer may be.", code="answer.too_large")
    return Response(body=body, status_code=answer.status, headers=headers)


def _failure(error: HotplugError, instance: str, request_id: str) -> Response:
    document, found = problem(error, instance=instance, request_id=request_id)
    headers: dict[str, str | list[str]] = {**found, "Cache-Control": "no-store"}
    return Response(body=json.dumps(document, ensure_ascii=False), status_code=error.status, headers=headers)
