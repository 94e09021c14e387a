"""What a model is offered of an operation, and what a call's arguments and answer become; no server is needed."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.core.errors import Invalid, Violation
from chalicelib.mcp.tool_operations import _arguments, _in_arguments, _offer, _result
from chalicelib.tools.binding.answers import CheckedAnswer
from chalicelib.tools.binding.arguments import ABSENT, Arguments
from chalicelib.tools.calling import ToolAnswer
from tests.unit.tools.binding import operations


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, Arguments()),
        ({"path": {"a": 1}, "query": {}}, Arguments(path={"a": 1})),
        ({"body": None}, Arguments(body=None)),
        (
            {"header": {"h": 1}, "cookie": {"c": 2}, "body": [1]},
            Arguments(header={"h": 1}, cookie={"c": 2}, body=[1]),
        ),
    ],
)
def test_arguments_come_in_groups(given: dict[str, Any], arguments: Arguments) -> None:
    assert _arguments(given, "/arguments") == arguments
    assert (_arguments(given, "/arguments").body is ABSENT) == ("body" not in given)


@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        (None, ["/_meta"]),
        ([], ["/_meta"]),
        ("x", ["/_meta"]),
        ({"a/b": 1}, ["/_meta/a~1b"]),
        ({"path": [], "query": None, "header": 1, "cookie": "x"}, [
            "/_meta/path", "/_meta/query", "/_meta/header", "/_meta/cookie",
        ]),
        ({"contentType": "x", "path": 1}, ["/_meta/contentType", "/_meta/path"]),
    ],
)  # fmt: skip
def test_everything_that_is_no_group_is_named(given: Any, pointers: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        _arguments(given, "/_meta")
    assert refused.value.code == "tool.invalid_arguments"
    assert [one.pointer for one in refused.value.errors] == pointers


def test_at_most_a_hundred_are_named_and_none_at_length() -> None:
    with pytest.raises(Invalid) as refused:
        _arguments({f"{number}{'x' * 1000}": 1 for number in range(200)}, "/arguments")
    assert len(refused.value.errors) == 100
    assert max(len(one.pointer) for one in refused.value.errors) <= 200


@pytest.mark.parametrize(
    ("pointer", "placed"),
    [
        ("/path/id", "/arguments/path/id"),
        ("/body", "/arguments/body"),
        ("/operationId", "/operationId"),
        ("/arguments/other", "/arguments/other"),
        ("/_meta/hotplug~1arguments/x", "/_meta/hotplug~1arguments/x"),
        ("", ""),
    ],
)
def test_violations_point_to_where_the_client_wrote_it(pointer: str, placed: str) -> None:
    assert _in_arguments(Violation(pointer, "rule", "message")).pointer == placed


@pytest.mark.parametrize(
    ("method", "read_only", "idempotent"),
    [("GET", True, True), ("HEAD", True, True), ("PUT", False, True), ("DELETE", False, True), ("POST", False, False),
     ("PATCH", False, False)],
)  # fmt: skip
def test_a_method_says_what_an_operation_does(method: str, read_only: bool, idempotent: bool) -> None:
    hints = _offer(operations.plan(method=method)).annotations
    assert (hints["readOnlyHint"], hints["idempotentHint"], hints["openWorldHint"]) == (
        read_only,
        idempotent,
        True,
    )


@pytest.mark.parametrize(
    ("said", "title", "description"),
    [
        ({}, "op", "POST /things"),
        ({"summary": "Does it"}, "Does it", "Does it"),
        ({"description": "At length."}, "op", "At length."),
        ({"summary": "Does it", "description": "At length."}, "Does it", "Does it\n\nAt length."),
        ({"summary": "Same", "description": "Same"}, "Same", "Same"),
        ({"summary": "Old", "deprecated": True}, "Old", "Old\n\nDeprecated."),
    ],
)
def test_what_is_said_of_an_operation(said: dict[str, Any], title: str, description: str) -> None:
    offer = _offer(operations.plan(**said))
    assert (offer.title, offer.description) == (title, description)


def answer(body: Any, media_type: str | None) -> ToolAnswer:
    return ToolAnswer(200, {}, CheckedAnswer(200, body, media_type), 1.0)


OCTETS = {"base64": "AAE=", "contentType": "image/png"}


@pytest.mark.parametrize(
    ("body", "media_type", "content", "structured"),
    [
        ({"ä": 1}, "application/json", {"type": "text", "text": '{"ä": 1}'}, {"ä": 1}),
        ([1], "application/json", {"type": "text", "text": "[1]"}, [1]),
        (None, None, {"type": "text", "text": "null"}, None),
        ("hello", "text/plain", {"type": "text", "text": "hello"}, "hello"),
        (OCTETS, "image/png", {"type": "image", "data": "AAE=", "mimeType": "image/png"}, ...),
        (OCTETS, "audio/wav", {"type": "audio", "data": "AAE=", "mimeType": "audio/wav"}, ...),
        ("<svg/>", "image/svg+xml", {"type": "text", "text": "<svg/>"}, "<svg/>"),
    ],
)
def test_what_a_model_is_told(
    body: Any, media_type: str | None, content: dict[str, Any], structured: Any
) -> None:
    result = _result(answer(body, media_type), {"hotplug/status": 200})
    assert (list(result.content), result.is_error, result.meta) == ([content], False, {"hotplug/status": 200})
    if structured is ...:
        assert type(result.structured).__name__ == "_Absent"
    else:
        assert result.structured == structured
