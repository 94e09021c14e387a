"""The node `plugin`: an operation of a tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chalicelib.core.errors import HotplugError, Invalid, Violation
from chalicelib.core.strict_json import escape
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import TOOL_FAILED
from chalicelib.flows.nodes.outputs import outputs_of
from chalicelib.flows.nodes.refusals import refused
from chalicelib.tools import execution_log, running
from chalicelib.tools.binding import media_types
from chalicelib.tools.binding.arguments import ABSENT, Arguments, merge
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.calling import MAX_TIMEOUT_MS, Options
from chalicelib.tools.openapi.operation import LOCATIONS
from chalicelib.tools.services import Services

DEFAULT_VERSION = "V1.0"
BODY = "body"
IDEMPOTENCY_KEY = "Idempotency-Key"


def execute(services: Services, call: Call) -> Result:
    """Call the operation as the flow's author, keep the row of the call, and return the answer's body as outputs.

    The inputs are what a model would give, `businessInput` what the business gives: see `arguments.merge`.

    Raises
    ------
    NodeError
        23400, 20601.
    """
    params = call.node.params
    business = {str(one["name"]): one.get("value") for one in params.get("businessInput", ())}

    def arguments(plan: CallPlan) -> Arguments:
        return merge(plan, placed(plan, call.inputs), placed(plan, business))

    try:
        answer, row = running.run(
            services,
            call.scope.author,
            params["pluginId"],
            version=params.get("version") or DEFAULT_VERSION,
            operation_id=params["operationId"],
            arguments=arguments,
            options=Options(timeout_ms=int(call.seconds_left(MAX_TIMEOUT_MS / 1000) * 1000)),
            headers={IDEMPOTENCY_KEY: call.idempotency_key},
        )
        services.database.run(lambda session: execution_log.store(session, row))
    except HotplugError as error:
        raise refused(error, TOOL_FAILED, call) from error
    return Result(outputs_of(call.node, answer.checked.body, "The answer"))


def placed(plan: CallPlan, values: Mapping[str, Any]) -> Arguments:
    """Return values by name as the arguments of an operation, each where the operation has a place of its name.

    A name that stands in several places (`id` in the path and in the body) goes to all of them. One that stands in none
    becomes a member of the body, if the body takes others; `body` is the whole body, unless something is called that.

    Raises
    ------
    errors.Invalid
        `tool.invalid_arguments` with `argument.unknown`: the operation has no place for a name.
    """
    groups: dict[str, dict[str, Any]] = {location: {} for location in LOCATIONS}
    members: dict[str, Any] = {}
    whole: Any = ABSENT
    unknown: list[str] = []
    known, is_open = _members(plan)
    for name, value in values.items():
        places = list(_locations(plan, name))
        for location in places:
            groups[location][name] = value
        if name in known:
            members[name] = value
        elif not places and name == BODY and plan.operation.body is not None:
            whole = value
        elif not places and is_open:
            members[name] = value
        elif not places:
            unknown.append(name)
    if unknown:
        found = [
            Violation(f"/{escape(name)}", "argument.unknown", "has no place in this operation")
            for name in unknown
        ]
        raise Invalid("The arguments do not hold.", code="tool.invalid_arguments", errors=found[:100])
    if members:
        whole = {**whole, **members} if isinstance(whole, dict) else members
    return Arguments(
        path=groups["path"],
        query=groups["query"],
        header=groups["header"],
        cookie=groups["cookie"],
        body=whole,
    )


def _locations(plan: CallPlan, name: str) -> Iterator[str]:
    for location in LOCATIONS:
        known = plan.header_names.get(name.lower(), name) if location == "header" else name
        if known in plan.parameters[location]:
            yield location


def _members(plan: CallPlan) -> tuple[frozenset[str], bool]:
    """Return the names of the body's members, and whether it takes others."""
    body = plan.operation.body
    content = None if body is None else media_types.preferred(body.contents)
    if content is None or not media_types.is_structured(content.media_type):
        return frozenset(), False
    shape = plan.possible(content.schema)
    if shape.types is not None and "object" not in shape.types:
        return frozenset(), False
    closed = any(part.get("additionalProperties") is False for part in shape.parts)
    return frozenset(shape.names), not closed
