from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from infra.local.proxy import MalformedResult, http_response, proxy_event
from infra.local.wire import Request


def event(body: bytes = b"", query: str = "", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return proxy_event(
        Request("POST", "/p/a%2Fb", pairs, body, "127.0.0.1"),
        path="/p/a%2Fb",
        query=query,
        resource_path="/p/{id}",
        path_parameters={"id": "a%2Fb"},
        binary_types={"multipart/form-data"},
        request_id="r-1",
    )


def test_the_event_names_the_resource_and_keeps_parameters_encoded() -> None:
    made = event()
    assert made["resource"] == made["requestContext"]["resourcePath"] == "/p/{id}"
    assert made["pathParameters"] == {"id": "a%2Fb"}
    assert made["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"
    assert made["requestContext"]["requestId"] == "r-1"
    assert made["body"] is None
    assert made["multiValueQueryStringParameters"] is None


def test_query_parameters_are_decoded_with_all_their_values() -> None:
    made = event(query="a=1&a=%C3%A4+b&empty=")
    assert made["multiValueQueryStringParameters"] == {"a": ["1", "ä b"], "empty": [""]}
    assert made["queryStringParameters"] == {"a": "ä b", "empty": ""}


def test_headers_that_differ_in_case_are_one_and_hop_by_hop_ones_stay_behind() -> None:
    made = event(X_One="1", x_one="2", Connection="close", Transfer_Encoding="chunked")
    assert made["multiValueHeaders"]["X-One"] == ["1", "2"]
    assert made["headers"]["X-One"] == "2"
    assert {"connection", "transfer-encoding", "x-one"}.isdisjoint(made["headers"])


@pytest.mark.parametrize(
    ("content_type", "body", "expected", "encoded"),
    [
        ("multipart/form-data; boundary=x", b"\xff\x00", "/wA=", True),
        ("application/json", '{"ä":1}'.encode(), '{"ä":1}', False),
        ("application/json", b"\xff", "�", False),
    ],
)
def test_binary_types_arrive_as_base64(content_type: str, body: bytes, expected: str, encoded: bool) -> None:
    made = event(body, Content_Type=content_type)
    assert (made["body"], made["isBase64Encoded"]) == (expected, encoded)


def answer(**parts: Any) -> bytes:
    return json.dumps({"statusCode": 200, **parts}).encode()


def test_a_flagged_body_is_decoded() -> None:
    body = base64.b64encode(bytes(range(256))).decode()
    assert http_response(answer(body=body, isBase64Encoded=True)).body == bytes(range(256))


def test_headers_of_both_kinds_are_sent_and_content_type_defaults_to_json() -> None:
    made = http_response(answer(headers={"A": "1", "B": True}, multiValueHeaders={"a": ["2", "3"]}))
    assert made.headers == [("B", "true"), ("a", "2"), ("a", "3"), ("Content-Type", "application/json")]


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"[]",
        b"null",
        b"{}",
        answer(statusCode=99),
        answer(statusCode="abc"),
        answer(statusCode=True),
        answer(body={"not": "text"}),
        answer(body="?", isBase64Encoded=True),
        answer(headers={"X": "a\r\nSet-Cookie: b"}),
        answer(headers={"X y": "a"}),
        answer(headers={"X": {}}),
        answer(headers=[]),
        answer(multiValueHeaders={"X": "a"}),
    ],
)
def test_what_is_no_proxy_response_is_refused(payload: bytes) -> None:
    with pytest.raises(MalformedResult):
        http_response(payload)
