"""What a model is told of an operation: the JSON Schema of the arguments that it may give, and of the answer."""

from __future__ import annotations

from typing import Any

from chalicelib.tools.binding import binary, media_types
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.binding.shapes import Shape, Shapes, definition_name
from chalicelib.tools.binding.views import View
from chalicelib.tools.openapi.operation import (
    FROM_MODEL,
    LOCATIONS,
    Content,
    Location,
    Operation,
    Schema,
)


def model_schema(operation: Operation) -> dict[str, Any]:
    """Return the schema of the arguments that a model gives; stands on its own, as an MCP tool's `inputSchema`.

    An object with `path`, `query`, `header`, `cookie` and `body`, those that have something to give. Only what comes
    from the model (`x-from: 0`) and is displayed is in it, to any depth; what has a default is not required, and what
    is `readOnly` is left out. The body is that of the content that is sent where none is named.

    Raises
    ------
    errors.Invalid
        `tool.schema_too_complex`.
    """
    plan = CallPlan(operation)
    view = _view(operation, _is_not_for_model)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for location in LOCATIONS:
        group = _group(plan, view, location)
        if group is not None:
            properties[location] = group
            required += [location] if "required" in group else []
    content = _content(operation)
    if content is not None and _has_part(view, content):
        properties["body"] = _body(plan, view, content)
        required += ["body"] if _must_give(operation, view, content) else []
    return _closed(view, _object(properties, required))


def output_schema(operation: Operation) -> dict[str, Any] | None:
    """Return the schema of a successful JSON answer without what is hidden; None where it is no object, or where the
    document describes none."""
    for response in sorted(operation.responses, key=lambda each: each.status.upper() == "2XX"):
        if not response.status.startswith("2"):
            continue
        for content in response.contents:
            if media_types.is_json(content.media_type):
                return _output(operation, content.schema)
    return None


def _output(operation: Operation, schema: Schema) -> dict[str, Any] | None:
    view = _view(operation, lambda shape: shape.hidden or shape.write_only)
    if Shapes(operation.definitions, branches=False).of(schema).types != ("object",):
        return None
    seen = view.closed(schema)
    # An MCP client looks for the type at the root (2025-06-18, Tool.outputSchema), not behind a reference.
    return {**seen, "type": "object"} if isinstance(seen, dict) else None


def _view(operation: Operation, left_out: Any) -> View:
    shapes = Shapes(operation.definitions, branches=True)
    return View(shapes, operation.definitions, lambda shape: bool(shape.defaults), left_out, notes=False)


def _is_not_for_model(shape: Shape) -> bool:
    return shape.read_only or _is_for_others(shape)


def _is_for_others(shape: Shape) -> bool:
    return shape.hidden or shape.origin != FROM_MODEL


def _group(plan: CallPlan, view: View, location: Location) -> dict[str, Any] | None:
    """Return the schema of the parameters of one location."""
    properties: dict[str, Schema] = {}
    required = []
    for name, parameter in plan.parameters[location].items():
        hidden = parameter.origin != FROM_MODEL or not parameter.displayed
        if hidden or view.left_out(view.shapes.of(parameter.schema)):
            continue
        seen = view.of(parameter.schema)
        if parameter.description and isinstance(seen, dict) and "description" not in seen:
            seen = {**seen, "description": parameter.description}
        properties[name] = seen
        if parameter.required and not plan.certain(parameter.schema).defaults:
            required.append(name)
    return _object(properties, required) if properties else None


def _content(operation: Operation) -> Content | None:
    body = operation.body
    if body is None or not body.contents:
        return None
    return media_types.preferred(body.contents) or body.contents[0]


def _has_part(view: View, content: Content) -> bool:
    """Return whether a body has anything that the model gives."""
    shape = view.shapes.of(content.schema)
    if view.left_out(shape):
        return False
    return not shape.names or any(not _is_left_out(view, shape, name) for name in shape.names)


def _must_give(operation: Operation, view: View, content: Content) -> bool:
    """Return whether the model has to give a body: not where others give members of it, and all of the model's are
    optional."""
    shape = view.shapes.of(content.schema)
    given = {name for name in shape.names if not _is_left_out(view, shape, name)}
    needed = [name for name in given & shape.required if not _member(view, shape, name).defaults]
    by_others = any(_is_for_others(_member(view, shape, name)) for name in shape.names)
    return operation.body is not None and operation.body.required and (bool(needed) or not by_others)


def _is_left_out(view: View, shape: Shape, name: str) -> bool:
    return view.left_out(_member(view, shape, name))


def _member(view: View, shape: Shape, name: str) -> Shape:
    return shape.member(name) or view.shapes.of(True)


def _body(plan: CallPlan, view: View, content: Content) -> Schema:
    if media_types.is_json(content.media_type):
        return view.of(content.schema)
    if not media_types.is_structured(content.media_type):
        return _opaque(content)
    schema = view.of(_dereferenced(view, content.schema))
    if not isinstance(schema, dict) or "properties" not in schema:
        return schema
    shape = plan.certain(content.schema)
    members = {name: _with_octets(each, shape.member(name)) for name, each in schema["properties"].items()}
    return {**schema, "properties": members}


def _dereferenced(view: View, schema: Schema) -> Schema:
    """Return what a root that is a bare reference means, so that its members can be described anew."""
    seen = set[str]()
    while isinstance(schema, dict) and "$ref" in schema and "properties" not in schema:
        name = definition_name(schema["$ref"])
        if name in seen or name not in view.definitions:
            break
        seen.add(name)
        schema = view.definitions[name]
    return schema


def _with_octets(schema: Schema, shape: Shape | None) -> Schema:
    if _takes_octets(shape):
        return _or_binary(schema)
    inner = shape.item(0) if shape is not None else None
    if _takes_octets(inner) and isinstance(schema, dict) and "items" in schema:
        return {**schema, "items": _or_binary(schema["items"])}
    return schema


def _opaque(content: Content) -> Schema:
    said = content.schema.get("description") if isinstance(content.schema, dict) else None
    text: dict[str, Any] = {"type": "string"} | ({"description": said} if said else {})
    return text if media_types.is_text(content.media_type) else _or_binary(text)


def _or_binary(schema: Schema) -> Schema:
    return {"anyOf": [schema, binary.SCHEMA]}


def _takes_octets(shape: Shape | None) -> bool:
    return shape is not None and (
        shape.says("format") == "binary" or shape.says("contentEncoding") is not None
    )


def _object(properties: dict[str, Schema], required: list[str]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return {**schema, "additionalProperties": False}


def _closed(view: View, schema: dict[str, Any]) -> dict[str, Any]:
    definitions = view.reached((schema,))
    return {**schema, "$defs": definitions} if definitions else schema
