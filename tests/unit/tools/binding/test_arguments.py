from __future__ import annotations

from typing import Any

import pytest

from chalicelib.core.errors import Invalid
from chalicelib.tools.binding.arguments import ABSENT, Arguments, Resolved, merge, resolve
from chalicelib.tools.binding.plan import CallPlan
from chalicelib.tools.binding.request import bind
from chalicelib.tools.binding.shapes import TooComplex
from chalicelib.tools.openapi.operation import FIXED, FROM_BUSINESS, Content, RequestBody
from tests.unit.tools.binding.operations import body, found, operation, parameter, plan

INTEGER = {"type": "integer"}
STRING = {"type": "string"}


def refused(call: CallPlan, arguments: Arguments) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        resolve(call, arguments)
    assert caught.value.code == "tool.invalid_arguments"
    return found(caught.value)


def resolved_body(schema: Any, value: Any, *, required: bool = True, **definitions: Any) -> Any:
    call = plan(body=body(schema, required=required), definitions=definitions)
    resolved = resolve(call, Arguments(body=value))
    return ABSENT if resolved.body is None else resolved.body.value


# -- parameters ------------------------------------------------------------------------------------------------------


def test_values_are_taken_and_defaults_added() -> None:
    call = plan(
        parameter("id", "path", STRING),
        parameter("limit", schema={"$ref": "#/$defs/Limit"}),
        parameter("cursor", schema=STRING),
        parameter("X-Trace", "header", {"allOf": [{"type": "string", "default": "on"}]}),
        parameter("theme", "cookie", STRING),
        path="/things/{id}",
        definitions={"Limit": {"type": "integer", "default": 10}},
    )
    resolved = resolve(call, Arguments(path={"id": "a"}, cookie={"theme": "dark"}))
    assert resolved == Resolved(
        {
            "path": {"id": "a"},
            "query": {"limit": 10},
            "header": {"X-Trace": "on"},
            "cookie": {"theme": "dark"},
        },
        None,
    )


def test_a_header_is_found_in_any_case() -> None:
    call = plan(parameter("X-Trace", "header", STRING))
    assert resolve(call, Arguments(header={"x-trace": "a"})).parameters["header"] == {"X-Trace": "a"}
    assert refused(call, Arguments(header={"x-trace": "a", "X-TRACE": "b"})) == [
        ("/header/X-TRACE", "argument.twice")
    ]


def test_every_violation_is_told_at_once() -> None:
    call = plan(
        parameter("id", "path", STRING),
        parameter("limit", schema={"type": "integer", "maximum": 10}),
        parameter("q", required=True, schema=STRING),
        path="/things/{id}",
        body=body({"type": "object", "properties": {"items": {"items": {"properties": {"name": STRING}}}}}),
    )
    arguments = Arguments(
        query={"limit": 11, "a/b": 1},
        header={"x": 1},
        body={"items": [{"name": 1}]},
        content_type="application/json",
    )
    assert refused(call, arguments) == [
        ("/path/id", "argument.required"),
        ("/query/a~1b", "argument.unknown"),
        ("/query/limit", "schema.maximum"),
        ("/query/q", "argument.required"),
        ("/header/x", "argument.unknown"),
        ("/body/items/0/name", "schema.type"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "TE",
        "Upgrade",
        "Proxy-Authorization",
        "Cookie",
        "Accept",
        "Authorization",
        "Content-Type",
        "Expect",
        "Accept-Encoding",
    ],
)
def test_headers_that_no_argument_sets(name: str) -> None:
    call = plan(parameter(name, "header", STRING, required=True))
    assert refused(call, Arguments(header={name: "x"})) == [(f"/header/{name}", "argument.reserved_header")]
    assert resolve(call, Arguments()).parameters["header"] == {}


def test_at_most_a_hundred_violations() -> None:
    arguments = Arguments(query={str(index): 1 for index in range(1_000)})
    assert len(refused(plan(), arguments)) == 100


def test_a_hostile_name_is_told_in_a_pointer_that_can_be_written() -> None:
    ((pointer, rule),) = refused(plan(), Arguments(query={"\ud800" * 1_000_000: 1}))
    assert (pointer, rule) == ("/query/" + "?" * 200, "argument.unknown")


@pytest.mark.parametrize(
    ("value", "rule"),
    [("\ud800", "argument.encoding"), (float("nan"), "argument.number"), (None, "schema.type")],
)
def test_values_that_are_no_values(value: Any, rule: str) -> None:
    call = plan(parameter("q", schema=STRING), parameter("n", schema=True))
    name = "q" if value is None else "n"
    assert refused(call, Arguments(query={name: value})) == [(f"/query/{name}", rule)]


@pytest.mark.parametrize(
    ("given", "ok"), [({}, True), ({"v": "2"}, True), ({"v": "3"}, False), ({"v": 2}, False)]
)
def test_a_fixed_parameter_has_one_value(given: dict[str, Any], ok: bool) -> None:
    call = plan(parameter("v", schema={"type": "string", "default": "2"}, origin=FIXED))
    if ok:
        assert resolve(call, Arguments(query=given)).parameters["query"] == {"v": "2"}
    else:
        assert refused(call, Arguments(query=given)) == [("/query/v", "argument.fixed")]


def test_a_fixed_parameter_without_a_value() -> None:
    call = plan(
        parameter("v", schema=STRING, origin=FIXED),
        parameter("w", schema=STRING, origin=FIXED, required=True),
    )
    assert refused(call, Arguments(query={"v": "x"})) == [
        ("/query/v", "argument.fixed"),
        ("/query/w", "argument.required"),
    ]


# -- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"properties": {"a": {"default": 1}}}, {}, {"a": 1}),
        ({"properties": {"a": {"default": 1}}}, {"a": None}, {"a": None}),
        ({"allOf": [{"properties": {"a": {"default": 1}}}]}, {"b": 2}, {"b": 2, "a": 1}),
        ({"$ref": "#/$defs/A"}, {}, {"a": 1}),
        ({"items": {"$ref": "#/$defs/A"}}, [{}, {"a": 2}, 3], [{"a": 1}, {"a": 2}, 3]),
        ({"prefixItems": [{"$ref": "#/$defs/A"}]}, [{}, {}], [{"a": 1}, {}]),
        ({"properties": {"o": {"$ref": "#/$defs/A"}}}, {"o": {}}, {"o": {"a": 1}}),
        ({"properties": {"o": {"$ref": "#/$defs/A"}}}, {}, {}),
        ({"additionalProperties": {"$ref": "#/$defs/A"}}, {"x": {}}, {"x": {"a": 1}}),
        # A branch may not be the one that is chosen.
        ({"anyOf": [{"properties": {"a": {"default": 1}}}, True]}, {}, {}),
        # A default is taken as it is written.
        ({"properties": {"o": {"$ref": "#/$defs/A", "default": {}}}}, {}, {"o": {}}),
        ({"$ref": "#/$defs/Node"}, {}, {"next": {}}),
        ({"properties": {"id": {"readOnly": True}, "n": True}}, {"id": 1, "n": 2}, {"n": 2}),
        ({"properties": {"id": {"readOnly": True, "default": 1}}}, {}, {}),
        ({"properties": {"id": {"readOnly": True}}, "required": ["id"]}, {}, {}),
        ({"properties": {"o": {"properties": {"id": {"readOnly": True}}, "required": ["id"]}}}, {"o": {}}, {"o": {}}),
        ({"allOf": [{"$ref": "#/$defs/Base"}, {"required": ["id"]}]}, {}, {}),
        ({"properties": {"id": {"readOnly": True}}, "allOf": [{"required": ["id"]}]}, {}, {}),
        ({"properties": {"v": {"x-from": 2, "default": "x"}}}, {}, {"v": "x"}),
        ({"properties": {"v": {"x-from": 2, "default": "x"}}}, {"v": "x"}, {"v": "x"}),
        ({"properties": {"m": {"$ref": "#/$defs/Fixed"}}, "required": ["m"]}, {}, {"m": {"v": "x", "a": 1}}),
        ({"properties": {"m": {"$ref": "#/$defs/A"}}, "required": []}, {}, {}),
        ({"properties": {"m": {"$ref": "#/$defs/Fixed"}}}, {}, {}),
        ({"properties": {"m": {"$ref": "#/$defs/Fixed"}}}, ABSENT, ABSENT),
        ({"$ref": "#/$defs/Fixed"}, ABSENT, {"v": "x", "a": 1}),
        ({"$ref": "#/$defs/Chain"}, {}, {"chain": {"v": 1}}),
        ({"type": "array", "default": [1]}, ABSENT, ABSENT),
        ({"type": ["null", "string"]}, None, None),
    ],
)  # fmt: skip
def test_what_the_document_adds_to_a_body(schema: Any, value: Any, expected: Any) -> None:
    definitions = {
        "A": {"properties": {"a": {"default": 1}}},
        "Base": {"properties": {"id": {"readOnly": True}}},
        "Fixed": {"type": "object", "properties": {"v": {"x-from": 2, "default": "x"}, "a": {"default": 1}}},
        "Node": {"properties": {"next": {"$ref": "#/$defs/Node", "default": {}}}},
        "Chain": {
            "properties": {"v": {"x-from": 2, "default": 1}, "chain": {"$ref": "#/$defs/Chain"}},
        },
    }
    if schema == {"$ref": "#/$defs/Chain"}:
        schema = {"properties": {"chain": {"$ref": "#/$defs/Chain"}}, "required": ["chain"]}
    assert resolved_body(schema, value, required=False, **definitions) == expected


def test_a_required_body_may_come_from_the_document() -> None:
    assert resolved_body({"type": "array", "default": [1]}, ABSENT) == [1]
    assert refused(plan(body=body(STRING)), Arguments()) == [("/body", "argument.required")]
    assert refused(plan(body=body(STRING, "image/*")), Arguments()) == [("/body", "argument.required")]
    assert resolve(plan(body=body(STRING, required=False)), Arguments()).body is None


def test_the_arguments_are_left_as_they_are() -> None:
    value: dict[str, Any] = {"o": {}}
    schema = {"properties": {"o": {"properties": {"a": {"default": [1]}}}}}
    assert resolved_body(schema, value) == {"o": {"a": [1]}}
    assert value == {"o": {}}


@pytest.mark.parametrize(
    ("schema", "value", "pointer"),
    [
        ({"properties": {"v": {"x-from": 2, "default": "x"}}}, {"v": "y"}, "/body/v"),
        ({"items": {"properties": {"v": {"x-from": 2}}}}, [{"v": None}], "/body/0/v"),
        ({"anyOf": [{"properties": {"v": {"x-from": 2, "default": "x"}}}]}, {"v": "y"}, "/body/v"),
    ],
)
def test_a_fixed_member_has_one_value(schema: Any, value: Any, pointer: str) -> None:
    assert refused(plan(body=body(schema)), Arguments(body=value)) == [(pointer, "argument.fixed")]


def test_a_cycle_of_required_objects_ends() -> None:
    both = {"left": {"$ref": "#/$defs/Tree"}, "right": {"$ref": "#/$defs/Tree"}}
    tree = {"properties": {**both, "v": {"x-from": 2, "default": 1}}, "required": ["left", "right"]}
    call = plan(body=body({"$ref": "#/$defs/Tree"}), definitions={"Tree": tree})
    assert ("/body/left", "schema.required") in refused(call, Arguments(body={}))


def test_required_objects_that_double_with_every_level_are_given_up() -> None:
    levels: dict[str, Any] = {"40": {"properties": {"v": {"x-from": 2, "default": 1}}}}
    for level in range(40):
        following = {"$ref": f"#/$defs/{level + 1}"}
        levels[str(level)] = {"properties": {"a": following, "b": following}, "required": ["a", "b"]}
    call = plan(body=body({"$ref": "#/$defs/0"}), definitions=levels)
    with pytest.raises(TooComplex):
        resolve(call, Arguments())


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string", "maxLength": 2}, {"base64": "AAEC"}, [("/body", "schema.maxLength")]),
        ({"type": "string", "maxLength": 3}, {"base64": "AAEC", "filename": "x"}, []),
        ({"type": "string", "contentEncoding": "base64", "maxLength": 4}, {"base64": "AAEC"}, []),
        ({}, {"base64": "AAEC="}, [("/body/base64", "argument.base64")]),
        ({}, {"base64": "é"}, [("/body/base64", "argument.base64")]),
        ({}, "text", []),
        ({"type": "object"}, {"base64": "??"}, [("/body", "argument.text")]),
    ],
)
def test_octets_are_judged_as_the_text_that_a_schema_speaks_of(
    schema: Any, value: Any, expected: Any
) -> None:
    call = plan(body=body(schema, "application/octet-stream"))
    if expected:
        with pytest.raises(Invalid) as caught:
            bind(call, Arguments(body=value))
        assert found(caught.value) == expected
    else:
        bind(call, Arguments(body=value))


@pytest.mark.parametrize(
    ("offered", "content_type", "value", "expected"),
    [
        (["text/plain", "application/json"], None, "x", "application/json"),
        (["text/plain", "application/json"], "text/plain", "x", "text/plain"),
        (["text/plain"], "text/plain; charset=utf-8", "x", "text/plain; charset=utf-8"),
        (["image/*"], "image/png", "x", "image/png"),
        (["image/*"], None, {"base64": "", "contentType": "image/gif"}, "image/gif"),
        (["image/*"], None, "x", ("/contentType", "argument.content_type")),
        (["image/*"], "image/*", "x", ("/contentType", "argument.content_type")),
        (["image/*"], "text/plain", "x", ("/contentType", "argument.content_type")),
        (["text/plain"], "text/plain; charset=utf-16", "x", ("/contentType", "argument.charset")),
        (["text/plain"], "text/plain; charset=rot13", "x", ("/contentType", "argument.charset")),
        (["*/*"], "text/plain\r\nX-Evil: 1", "x", ("/contentType", "argument.content_type")),
        (["*/*"], "évil/x", "x", ("/contentType", "argument.content_type")),
    ],
)
def test_the_content_that_is_meant(
    offered: list[str], content_type: str | None, value: Any, expected: Any
) -> None:
    contents = tuple(Content(media_type, True) for media_type in offered)
    call = plan(body=RequestBody(True, contents))
    arguments = Arguments(body=value, content_type=content_type)
    if isinstance(expected, tuple):
        assert refused(call, arguments) == [expected]
    else:
        resolved = resolve(call, arguments)
        assert resolved.body is not None
        assert resolved.body.media_type == expected


def test_a_body_where_none_is_taken() -> None:
    assert refused(plan(), Arguments(body=None)) == [("/body", "argument.unknown")]


def test_ten_thousand_levels_are_refused() -> None:
    value: Any = []
    for _ in range(10_000):
        value = [value]
    assert refused(plan(body=body(True)), Arguments(body=value)) == [("/body" + "/0" * 64, "argument.depth")]


def test_a_validator_is_compiled_once_per_plan() -> None:
    schema = {"type": "object"}
    call = plan(body=body(schema))
    assert call.request_validator(schema) is call.request_validator(schema)
    assert call.request_validator(schema) is not call.answer_validator({"type": "array"})


# -- the model and the business --------------------------------------------------------------------------------------

SHARED = plan(
    parameter("q", schema=STRING),
    parameter("tenant", schema=STRING, origin=FROM_BUSINESS),
    parameter("secret", schema=STRING, displayed=False),
    parameter("X-A", "header", STRING),
    body=body(
        {
            "properties": {
                "name": STRING,
                "owner": {"x-from": 1},
                "note": {"x-display": False},
                "lines": {"items": {"properties": {"price": {"x-from": 1}, "sku": STRING}}},
                "either": {"oneOf": [{"properties": {"x": {"x-from": 1}}}, True]},
            },
        }
    ),
)


def test_the_model_and_the_business_together() -> None:
    merged = merge(
        SHARED,
        Arguments(
            query={"q": "m"}, header={"x-a": "m"}, body={"name": "m", "lines": [{"sku": 1}, {"sku": 2}]}
        ),
        Arguments(
            query={"q": "b", "tenant": "t", "secret": "s"},
            header={"X-a": "b"},
            body={"name": "b", "owner": "o", "lines": [{"sku": 9, "price": 5}]},
            content_type="application/json",
        ),
    )
    assert merged == Arguments(
        query={"q": "m", "tenant": "t", "secret": "s"},
        header={"X-A": "m"},
        body={"name": "m", "owner": "o", "lines": [{"sku": 1, "price": 5}, {"sku": 2}]},
        content_type="application/json",
    )


@pytest.mark.parametrize(
    ("arguments", "pointers"),
    [
        (Arguments(query={"tenant": "t"}), ["/query/tenant"]),
        (Arguments(query={"secret": "s"}), ["/query/secret"]),
        (Arguments(body={"owner": 1, "note": 2}), ["/body/owner", "/body/note"]),
        (Arguments(body={"lines": [{}, {"price": 1}]}), ["/body/lines/1/price"]),
        (Arguments(body={"either": {"x": 1}}), ["/body/either/x"]),
    ],
)
def test_what_a_model_must_not_give(arguments: Arguments, pointers: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        merge(SHARED, arguments, Arguments())
    assert found(caught.value) == [(pointer, "argument.not_from_model") for pointer in pointers]


def test_a_body_that_names_its_own_type_is_judged_by_that_type() -> None:
    schema = {"properties": {"base64": {"x-from": 1}}}
    call = plan(body=RequestBody(True, (Content("application/*", schema),)))
    with pytest.raises(Invalid) as caught:
        merge(call, Arguments(body={"base64": "", "contentType": "application/json"}), Arguments())
    assert found(caught.value) == [("/body/base64", "argument.not_from_model")]


def test_one_side_may_give_no_body() -> None:
    assert merge(SHARED, Arguments(), Arguments(body={"owner": 1})).body == {"owner": 1}
    assert merge(SHARED, Arguments(body={"name": "m"}), Arguments()).body == {"name": "m"}
    assert merge(SHARED, Arguments(), Arguments()).body is ABSENT


def test_the_model_cannot_escape_by_depth_or_by_unknown_names() -> None:
    value: Any = {"owner": 1}
    for _ in range(10_000):
        value = [value]
    with pytest.raises(Invalid) as caught:
        merge(SHARED, Arguments(body=value), Arguments())
    assert found(caught.value)[0][1] == "argument.depth"
    # An unknown name is for `resolve` to refuse.
    assert merge(SHARED, Arguments(query={"Tenant": "t"}), Arguments()).query == {"Tenant": "t"}


def test_an_operation_without_anything() -> None:
    assert resolve(CallPlan(operation(method="GET")), Arguments()).body is None
