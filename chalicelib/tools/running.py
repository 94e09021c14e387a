"""Running an operation of a tool: resolve it from the hot cache, bind the arguments, call, keep a row of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from chalicelib.core import telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.errors import HotplugError
from chalicelib.core.ids import new_ulid
from chalicelib.tools import credentials, drafts
from chalicelib.tools.authorization import Reveal
from chalicelib.tools.binding.arguments import Arguments
from chalicelib.tools.binding.request import bind
from chalicelib.tools.calling import Options, ReadyCall, ToolAnswer, call
from chalicelib.tools.execution_log import Call, measure, outcome_of, store
from chalicelib.tools.loading import load, plan_of
from chalicelib.tools.services import Services

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """What is called: an operation of a tool's version, or a tool of an MCP server."""

    tool_id: str
    version: str
    operation: str


def run(
    services: Services,
    caller: Caller,
    tool_id: str,
    *,
    version: str | None,
    operation_id: str,
    arguments: Callable[[Any], Arguments],
    options: Options,
    headers: Mapping[str, str] | None = None,
) -> tuple[ToolAnswer, Call]:
    """Call an operation; who asked stores the row of a call that ended well (`execution_log.store`). Not inside a unit.

    A call that ended badly is stored here, before its error is raised.

    Parameters
    ----------
    arguments
        Gets the operation's plan and returns the arguments.
    headers
        Sent besides; one that the operation has a parameter for stays what the arguments, or nobody, say.

    Raises
    ------
    errors.NotFound
        No such tool or version.
    errors.Invalid
        `tool.unknown_operation`, `tool.invalid_arguments`; nothing was sent.
    errors.HotplugError
        Those of `calling.call`, each with `executionId`.
    """
    loaded = load(services.cache, caller, tool_id, version)
    plan = loaded.plan(operation_id)
    request = bind(plan, arguments(plan))
    for name, value in (headers or {}).items():
        if name.lower() not in plan.header_names:
            request = request.with_header(name, value)
    owner = (str(caller.app_id), tool_id)
    ready = ReadyCall(plan, request, stored_credentials(services, caller, tool_id), owner, options)
    http = services.http_of(caller.app_id)
    return recorded(
        services,
        caller,
        Subject(tool_id, loaded.version, operation_id),
        lambda: call(http, services.tokens, ready),
        lambda answer: answer.status,
    )


def debug(
    services: Services,
    caller: Caller,
    *,
    document: Any,
    operation_id: str,
    arguments: Arguments,
    options: Options,
    given: Mapping[str, Any],
) -> tuple[ToolAnswer, tuple[str, ...]]:
    """Call an operation of a document that is not registered; nothing is stored. Return the answer, and what of the
    operation's document is not enforced.

    Parameters
    ----------
    given
        Credentials by scheme, in the form that `PUT /tools/{toolId}/credentials` takes.

    Raises
    ------
    errors.Invalid
        Also `tool.invalid_document` and `tool.invalid_credentials`.
    errors.HotplugError
        Those of `calling.call`.
    """
    read = drafts.read_checked(document)
    credentials.check_values(
        {scheme.name: scheme.kind for scheme in drafts.schemes_of(read)}, given, "/credentials"
    )
    plan = plan_of(read, operation_id)
    # No token outlives the call: nobody could say whose it is.
    owner = ("debug", new_ulid())
    ready = ReadyCall(plan, bind(plan, arguments), lambda scheme, _: given.get(scheme), owner, options)
    with telemetry.operation("tool.debug", operation=operation_id):
        answer = call(services.http_of(caller.app_id), services.tokens, ready)
    return answer, plan.operation.warnings


def stored_credentials(services: Services, caller: Caller, tool_id: str) -> Reveal:
    """Return what opens the caller's credentials for a tool, one at a time."""
    stored = credentials.stored(services.cache, caller, tool_id)

    def reveal(scheme: str, url: str) -> Mapping[str, Any] | None:
        one = stored.get(scheme)
        if one is None:
            return None
        return credentials.reveal(services.database, services.cache, caller, tool_id, one, url)

    return reveal


def recorded(
    services: Services,
    caller: Caller,
    subject: Subject,
    work: Callable[[], T],
    status_of: Callable[[T], int | None],
    error_of: Callable[[T], str | None] = lambda _: None,
) -> tuple[T, Call]:
    """Do the work of a call and return its result with what is to be stored of it.

    Parameters
    ----------
    status_of, error_of
        What the server answered, and the code of a failure that is a result all the same.

    Raises
    ------
    errors.HotplugError
        What `work` raises, with `executionId`, after the row was stored.
    """
    execution_id, started_at, began = new_ulid(), datetime.now(UTC), time.perf_counter()

    def ended(outcome: str, code: str | None, status: int | None) -> Call:
        return Call(
            execution_id=execution_id,
            tool_id=subject.tool_id,
            app_id=caller.app_id,
            version=subject.version,
            operation=subject.operation,
            request_id=caller.request_id,
            started_at=started_at,
            outcome=outcome,
            error_code=code,
            status=status,
            duration_ms=round((time.perf_counter() - began) * 1000, 3),
        )

    with telemetry.operation(
        "tool.run", toolId=subject.tool_id, version=subject.version, operation=subject.operation
    ) as operation:
        operation.note(executionId=execution_id)
        try:
            with operation.phase("call"):
                result = work()
        except HotplugError as error:
            upstream = error.extensions.get("upstream", {})
            failed = ended(outcome_of(error), error.code, upstream.get("status"))
            measure(failed)
            error.extensions.update(executionId=execution_id)
            services.database.run(lambda session: store(session, failed))
            raise
        code = error_of(result)
        done = ended("success" if code is None else "failed", code, status_of(result))
        measure(done)
        return result, done
