"""The operations of OpenAPI tools as MCP tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.core.answers import wire_bytes
from chalicelib.core.caller import Caller
from chalicelib.core.errors import HotplugError, Invalid, Violation
from chalicelib.core.strict_json import escape
from chalicelib.mcp import names
from chalicelib.mcp.argument_schema import cleaned
from chalicelib.mcp.offers import Index, Key, Offer, ToolResult
from chalicelib.tools import execution_log, loading, operations, running
from chalicelib.tools.binding.arguments import ABSENT, Arguments, merge
from chalicelib.tools.binding.model_schema import model_schema, output_schema
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.calling import Options, ToolAnswer
from chalicelib.tools.services import Services

BUSINESS_KEY = "hotplug/arguments"
"""In a call's `_meta`: what comes from the business and not from the model (`x-from: 1`), in the groups of a call."""

_ARGUMENTS = "/arguments"
_GROUPS = ("path", "query", "header", "cookie", "body")
_MEDIA = {"image": "image", "audio": "audio"}
# RFC 9110, 9.2: what a method says of itself.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_IDEMPOTENT = _SAFE | {"PUT", "DELETE"}


@dataclass(frozen=True)
class ToolOperations:
    """Offers each operation of the caller's tools, and of those that others share with it, in its newest version."""

    services: Services
    kind: str = "tool"

    def index(self, caller: Caller) -> Index:
        """Return the names; kept until any tool changes."""
        cache, place = self.services.cache, ("mcp.tools", caller.app_id)
        known: Index | None = cache.get(place)
        if known is None:
            stamp = cache.stamp()
            known = self._made(caller)
            cache.put(place, known, [("tools", "*")], stamp, weight=100 * len(known.names))
        return known

    def _made(self, caller: Caller) -> Index:
        found = operations.callable_tools(self.services.database, self.services.cache, caller.app_id)
        things = (((one.tool_id, each), (one.name, each)) for one in found for each in one.operations)
        named = names.assign(self.kind, things)
        return Index(tuple(sorted(named)), named)

    def describe(self, caller: Caller, named: Sequence[tuple[str, Key]]) -> list[Offer]:
        """Return the offers of a page: those that are not in memory are made from documents read together."""
        cache = self.services.cache
        keys = [key for _, key in named]
        offers: dict[Key, Offer] = {
            key: known for key in keys if (known := cache.get(_place(key))) is not None
        }
        missing = [key for key in keys if key not in offers]
        if missing:
            offers |= self._made_offers(missing)
        # What is not there was deleted between the index and this.
        return [replace(offers[key], name=name) for name, key in named if key in offers]

    def _made_offers(self, missing: Sequence[Key]) -> dict[Key, Offer]:
        stamp = self.services.cache.stamp()
        wanted: dict[str, list[str]] = {}
        for tool_id, operation_id in missing:
            wanted.setdefault(tool_id, []).append(operation_id)
        made: dict[Key, Offer] = {}
        for tool_id, document in loading.read_newest(self.services.database, list(wanted)):
            for operation_id in wanted[tool_id]:
                if operation_id not in document:
                    continue  # another version by now
                key = (tool_id, operation_id)
                offer = made[key] = _offer(loading.plan_of(document, operation_id))
                weight = wire_bytes([offer.input_schema, offer.output_schema])
                self.services.cache.put(_place(key), offer, [("tools", tool_id)], stamp, weight=weight)
        return made

    def call(
        self, caller: Caller, key: Key, arguments: dict[str, Any], meta: Mapping[str, Any]
    ) -> ToolResult:
        """Run an operation and keep its row, as POST /tools/{toolId}/run does.

        The model gives what it is shown; what the business gives stands in `_meta` under `hotplug/arguments`.

        Raises
        ------
        errors.HotplugError
            Those of `running.run`.
        """
        tool_id, operation_id = key
        model = _arguments(arguments, _ARGUMENTS)
        business = _arguments(meta.get(BUSINESS_KEY, {}), f"/_meta/{escape(BUSINESS_KEY)}")
        try:
            answer, call = running.run(
                self.services,
                caller,
                tool_id,
                version=None,
                operation_id=operation_id,
                arguments=lambda plan: merge(plan, model, business),
                options=Options(),
            )
        except HotplugError as error:
            if isinstance(error, Invalid):
                error.errors = tuple(_in_arguments(one) for one in error.errors)
            raise
        self.services.database.run(lambda session: execution_log.store(session, call))
        told = {
            "hotplug/executionId": call.execution_id,
            "hotplug/version": call.version,
            "hotplug/status": answer.status,
        }
        return _result(answer, told)


def _place(key: Key) -> tuple[str, ...]:
    return ("mcp.tool_offer", *key)


def _offer(plan: CallPlan) -> Offer:
    operation = plan.operation
    try:
        schema = model_schema(operation)
    except Invalid:
        # Its schemas branch without end. Whoever calls it is told of every argument that does not hold.
        schema = {"type": "object"}
    title = operation.summary or operation.operation_id
    text = [operation.summary, operation.description, "Deprecated." if operation.deprecated else ""]
    if not (operation.summary or operation.description):
        # A model has nothing else to go by.
        text.insert(0, f"{operation.method} {operation.path}")
    return Offer(
        name="",
        title=title,
        description="\n\n".join(dict.fromkeys(part for part in text if part)),
        input_schema=cleaned(schema),
        output_schema=_output(plan),
        annotations={
            "title": title,
            "readOnlyHint": operation.method in _SAFE,
            "idempotentHint": operation.method in _IDEMPOTENT,
            "openWorldHint": True,
        },
    )


def _output(plan: CallPlan) -> dict[str, Any] | None:
    try:
        schema = output_schema(plan.operation)
    except Invalid:
        return None
    return None if schema is None else cleaned(schema)


def _arguments(given: Any, pointer: str) -> Arguments:
    if not isinstance(given, dict):
        found = [Violation(pointer, "schema.type", "is no object")]
        raise Invalid("The arguments do not hold.", code="tool.invalid_arguments", errors=found)
    found = [
        Violation(f"{pointer}/{escape(name)}"[:200], "argument.unknown", f"is none of {', '.join(_GROUPS)}")
        for name in given
        if name not in _GROUPS
    ]
    found += [
        Violation(f"{pointer}/{group}", "schema.type", "is no object")
        for group in _GROUPS[:-1]
        if not isinstance(given.get(group, {}), dict)
    ]
    if found:
        raise Invalid("The arguments do not hold.", code="tool.invalid_arguments", errors=found[:100])
    return Arguments(
        path=given.get("path", {}),
        query=given.get("query", {}),
        header=given.get("header", {}),
        cookie=given.get("cookie", {}),
        body=given.get("body", ABSENT),
    )


def _in_arguments(violation: Violation) -> Violation:
    """Let a violation of an argument point to where the client wrote it."""
    group = violation.pointer.split("/")[1] if "/" in violation.pointer else ""
    if group not in _GROUPS:
        return violation
    return replace(violation, pointer=_ARGUMENTS + violation.pointer)


def _result(answer: ToolAnswer, told: dict[str, Any]) -> ToolResult:
    body, media_type = answer.checked.body, answer.checked.media_type or ""
    kind = _MEDIA.get(media_type.partition("/")[0])
    if kind is not None and isinstance(body, dict) and "base64" in body:
        return ToolResult([{"type": kind, "data": body["base64"], "mimeType": media_type}], meta=told)
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return ToolResult([{"type": "text", "text": text}], body, meta=told)
