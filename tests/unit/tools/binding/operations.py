"""Operations as the compiler makes them, written by hand."""

from __future__ import annotations

from typing import Any

from chalicelib.core.errors import HotplugError
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.openapi.operation import (
    Content,
    Location,
    Operation,
    Parameter,
    PropertyEncoding,
    RequestBody,
    ResponseSpec,
    Schema,
    Style,
)

STYLES: dict[Location, Style] = {"path": "simple", "query": "form", "header": "simple", "cookie": "form"}


def parameter(name: str, location: Location = "query", schema: Schema = True, **changes: Any) -> Parameter:
    style: Style = changes.pop("style", STYLES[location])
    values: dict[str, Any] = {"required": location == "path", "explode": style == "form", **changes}
    return Parameter(name=name, location=location, schema=schema, style=style, **values)


def operation(*parameters: Parameter, path: str = "/things", **changes: Any) -> Operation:
    values: dict[str, Any] = {
        "operation_id": "op",
        "method": "POST",
        "server_url": "https://api.example.com/v1",
        "body": None,
        "responses": (),
        "security": (),
        "definitions": {},
        **changes,
    }
    return Operation(path=path, parameters=parameters, **values)


def body(
    schema: Schema,
    media_type: str = "application/json",
    *,
    required: bool = True,
    **encoding: PropertyEncoding,
) -> RequestBody:
    return RequestBody(required, (Content(media_type, schema, encoding),))


def answer(schema: Schema, status: str = "200", media_type: str = "application/json") -> ResponseSpec:
    return ResponseSpec(status, (Content(media_type, schema),))


def plan(*parameters: Parameter, **changes: Any) -> CallPlan:
    return CallPlan(operation(*parameters, **changes))


def found(error: HotplugError) -> list[tuple[str, str]]:
    return [(violation.pointer, violation.rule) for violation in error.errors]
