"""The arguments of a call, and every check before one: who gives what, what the document adds, what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from chalicelib.core.strict_json import escape
from chalicelib.tools.binding import binary, media_types
from chalicelib.tools.binding.findings import Findings, check_json
from chalicelib.tools.binding.plan import CallPlan, is_ours
from chalicelib.tools.binding.values import check_fixed, created, filled, is_fixed, visit
from chalicelib.tools.openapi.operation import (
    FIXED,
    FROM_MODEL,
    LOCATIONS,
    Content,
    Location,
    Parameter,
    RequestBody,
    Schema,
)


class Absent(Enum):
    """No body at all, which is not the body `null`."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Arguments:
    """What a caller gives; values are JSON as parsed by `strict_json`.

    `content_type` chooses one of the contents of the body, or names the type where the document has a range
    (`image/*`).
    """

    path: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    cookie: Mapping[str, Any] = field(default_factory=dict)
    body: Any = ABSENT
    content_type: str | None = None

    def at(self, location: Location) -> Mapping[str, Any]:
        """Return the values of one location, by name."""
        values: Mapping[str, Any] = getattr(self, location)
        return values


@dataclass(frozen=True)
class ResolvedBody:
    """A checked body: its content in the document, and the media type that is sent, as the caller wrote it."""

    content: Content
    media_type: str
    value: Any


@dataclass(frozen=True)
class Resolved:
    """Checked arguments, with defaults and fixed values. Parameters have the names of the document."""

    parameters: Mapping[Location, Mapping[str, Any]]
    body: ResolvedBody | None


def resolve(plan: CallPlan, arguments: Arguments) -> Resolved:
    """Check arguments against an operation, and add what the document adds.

    A body member that is `readOnly` is left out of what is sent and never required (OpenAPI 3.1, 4.8.24: it should not
    be sent). A value that the document fixes (`x-from: 2`) is always sent; another one is refused.

    Raises
    ------
    errors.Invalid
        `tool.invalid_arguments` with all violations, at most 100: `argument.unknown`, `argument.required`,
        `argument.fixed`, `argument.encoding`, `schema.<keyword>` and others, at `/query/limit`, `/body/items/0/name`;
        `tool.schema_too_complex`.
    """
    found = Findings()
    resolved = resolve_into(plan, arguments, found)
    found.refuse()
    return resolved


def resolve_into(plan: CallPlan, arguments: Arguments, found: Findings) -> Resolved:
    """Do the same, but collect the violations; what is refused is not in the result."""
    parameters = {
        location: _parameters(plan, location, arguments.at(location), found) for location in LOCATIONS
    }
    return Resolved(parameters, _body(plan, arguments, found))


def merge(plan: CallPlan, model: Arguments, business: Arguments) -> Arguments:
    """Return the arguments of a model and of the business that calls on its behalf as one.

    The model gives only what it is shown: parameters and members that come from it (`x-from: 0`) and are displayed. The
    business may give anything; where both give the same value, the model's stays. Members of objects and items of lists
    that both give are merged one by one.

    Raises
    ------
    errors.Invalid
        `tool.invalid_arguments` with `argument.not_from_model` for everything that the model must not give.
    """
    found = Findings()
    for location in LOCATIONS:
        for name in model.at(location):
            parameter = _find(plan, location, name)
            if parameter is not None and (parameter.origin != FROM_MODEL or not parameter.displayed):
                _refuse_model(f"/{location}/{escape(name)}", found)
            elif parameter is not None and check_json(model.at(location)[name], f"/{location}", found):
                _check_model(
                    plan, parameter.schema, model.at(location)[name], f"/{location}/{escape(name)}", found
                )
    content_type = model.content_type or business.content_type
    content = _content(plan.operation.body, model.body, content_type, Findings())
    if content is not None and model.body is not ABSENT and check_json(model.body, "/body", found):
        _check_model(plan, content[0].schema, model.body, "/body", found)
    if business.body is not ABSENT:
        check_json(business.body, "/body", found)
    found.refuse()
    merged = {
        location: {**_named(plan, location, business), **_named(plan, location, model)}
        for location in LOCATIONS
    }
    body = business.body if model.body is ABSENT else _merged(model.body, business.body)
    return Arguments(**merged, body=body, content_type=content_type)


def _find(plan: CallPlan, location: Location, name: str) -> Parameter | None:
    # Header names are case-insensitive (RFC 9110, 5.1).
    known = plan.header_names.get(name.lower(), name) if location == "header" else name
    return plan.parameters[location].get(known)


def _named(plan: CallPlan, location: Location, arguments: Arguments) -> dict[str, Any]:
    """Return the values of one location by the names of the document."""
    found = ((_find(plan, location, name), name, value) for name, value in arguments.at(location).items())
    return {name if parameter is None else parameter.name: value for parameter, name, value in found}


def _merged(model: Any, business: Any) -> Any:
    if isinstance(model, dict) and isinstance(business, dict):
        return {
            **business,
            **{name: _merged(item, business.get(name, ABSENT)) for name, item in model.items()},
        }
    if isinstance(model, list) and isinstance(business, list):
        beside = [*business[: len(model)], *[ABSENT] * (len(model) - len(business))]
        return [_merged(item, other) for item, other in zip(model, beside, strict=True)]
    return model


def _check_model(plan: CallPlan, schema: Schema, value: Any, pointer: str, found: Findings) -> None:
    if plan.says(schema, "x-from") or plan.says(schema, "x-display"):
        for _, shape, place in visit(value, plan.possible(schema), pointer):
            if shape.origin != FROM_MODEL or shape.hidden:
                _refuse_model(place, found)


def _refuse_model(pointer: str, found: Findings) -> None:
    found.add(pointer, "argument.not_from_model", "is not for the model to give")


def _parameters(
    plan: CallPlan, location: Location, given: Mapping[str, Any], found: Findings
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in given.items():
        pointer, parameter = f"/{location}/{_shown(name)}", _find(plan, location, name)
        if parameter is None:
            _refuse_unknown(location, name, pointer, found)
        elif parameter.name in values:
            found.add(pointer, "argument.twice", "is given twice, in different cases")
        else:
            values[parameter.name] = value
    resolved = {}
    for parameter in plan.parameters[location].values():
        pointer = f"/{location}/{escape(parameter.name)}"
        value = values.get(parameter.name, ABSENT)
        if value is ABSENT:
            value = _default(plan, parameter, pointer, found)
        elif not _is_acceptable(plan, parameter, value, pointer, found):
            continue
        if value is not ABSENT:
            resolved[parameter.name] = value
    return resolved


def _refuse_unknown(location: Location, name: str, pointer: str, found: Findings) -> None:
    if location == "header" and is_ours(name):
        found.add(
            pointer, "argument.reserved_header", "belongs to the connection, the body or the credentials"
        )
    else:
        found.add(pointer, "argument.unknown", f"is no {location} parameter of this operation")


def _default(plan: CallPlan, parameter: Parameter, pointer: str, found: Findings) -> Any:
    defaults = plan.certain(parameter.schema).defaults
    if defaults:
        return defaults[0]
    if parameter.required or parameter.location == "path":
        found.add(pointer, "argument.required", "is required")
    return ABSENT


def _is_acceptable(plan: CallPlan, parameter: Parameter, value: Any, pointer: str, found: Findings) -> bool:
    before = len(found)
    if not check_json(value, pointer, found):
        return False
    if parameter.origin == FIXED and not is_fixed(value, plan.certain(parameter.schema)):
        found.add(pointer, "argument.fixed", "is fixed by the document")
        return False
    if plan.says(parameter.schema, "x-from"):
        check_fixed(value, plan.possible(parameter.schema), pointer, found)
    found.extend(plan.request_validator(parameter.schema).violations(value, pointer))
    return len(found) == before


def _body(plan: CallPlan, arguments: Arguments, found: Findings) -> ResolvedBody | None:
    body, value = plan.operation.body, arguments.body
    if body is None:
        if value is not ABSENT:
            found.add("/body", "argument.unknown", "is not taken by this operation")
        return None
    chosen = _content(body, value, arguments.content_type, found if value is not ABSENT else Findings())
    if value is not ABSENT and (chosen is None or not check_json(value, "/body", found)):
        return None
    if value is ABSENT and chosen is not None:
        value = _default_body(plan, body, chosen[0])
    if value is ABSENT or chosen is None:
        if body.required:
            found.add("/body", "argument.required", "is required")
        return None
    content, media_type = chosen
    return ResolvedBody(content, media_type, _checked_body(plan, content, media_type, value, found))


def _content(
    body: RequestBody | None, value: Any, content_type: str | None, found: Findings
) -> tuple[Content, str] | None:
    """Return the content that is meant, and the media type to send."""
    if body is None:
        return None
    content_type = content_type or _declared_type(body, value)
    if content_type is None:
        content = media_types.preferred(body.contents)
        if content is None:
            found.add("/contentType", "argument.content_type", "is needed: the document names no single type")
        return None if content is None else (content, content.media_type)
    parsed = media_types.parse_media_type(content_type)
    if parsed is None or media_types.is_range(parsed.essence):
        found.add("/contentType", "argument.content_type", "is no media type (RFC 9110, 8.3.1)")
        return None
    if parsed.unknown_charset or parsed.charset not in (None, "utf-8"):
        found.add("/contentType", "argument.charset", "names another charset than UTF-8")
        return None
    content = media_types.matching(body.contents, parsed.essence)
    if content is None:
        offered = ", ".join(each.media_type for each in body.contents)
        found.add("/contentType", "argument.content_type", f"is none of {offered}"[:300])
    return None if content is None else (content, content_type.strip(" \t"))


def _declared_type(body: RequestBody, value: Any) -> str | None:
    """Return the type that a binary value names for itself, where the document offers ranges only."""
    if media_types.preferred(body.contents) is None and binary.is_binary(value, None):
        declared: str | None = value.get("contentType")
        return declared
    return None


def _default_body(plan: CallPlan, body: RequestBody, content: Content) -> Any:
    """Return the body of a caller that gives none: what the document fixes is sent all the same."""
    shape = plan.certain(content.schema)
    if body.required and shape.defaults:
        return shape.defaults[0]
    made = created(shape) if media_types.is_structured(content.media_type) else {}
    return made or ABSENT


def _checked_body(plan: CallPlan, content: Content, media_type: str, value: Any, found: Findings) -> Any:
    schema = content.schema
    shape = plan.certain(schema)
    essence = media_type.split(";")[0].strip().lower()
    if media_types.is_structured(essence):
        if plan.says(schema, "x-from"):
            check_fixed(value, plan.possible(schema), "/body", found)
        if any(plan.says(schema, mark) for mark in ("default", "readOnly", "x-from")):
            value = filled(value, shape)
    judged = value
    if not media_types.is_structured(essence):
        judged = binary.stand_in(value, shape, "/body", found)
    elif not media_types.is_json(essence) and isinstance(value, dict):
        judged = binary.members_stand_in(value, shape, "/body", found)
    found.extend(plan.request_validator(schema).violations(judged, "/body"))
    return value


def _shown(name: Any) -> str:
    """Return an unknown name for a pointer: of any length, perhaps with characters that no answer can carry."""
    return escape(str(name)[:200].encode("utf-8", "replace").decode("utf-8"))
