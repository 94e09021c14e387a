from __future__ import annotations

import json

import pytest

from chalicelib.api.problem import PROBLEM, problem
from chalicelib.core import errors, strict_json
from chalicelib.core.errors import HotplugError, Violation
from chalicelib.core.json_schema.schemas import violations


def test_a_problem_has_every_violation_and_the_extensions() -> None:
    error = errors.Invalid(
        "No.",
        code="manifest.invalid",
        errors=[Violation("/a", "r.one", "one"), Violation("/b", "r.two", "two")],
        extensions={"pluginId": "plugin_a_abc123"},
    )
    document, headers = problem(error, instance="/x", request_id="r-1")
    assert violations(PROBLEM, document, "") == []
    assert document == {
        "type": "urn:hotplug:problem:manifest.invalid",
        "title": "Invalid",
        "status": 422,
        "detail": "No.",
        "instance": "/x",
        "code": "manifest.invalid",
        "requestId": "r-1",
        "errors": [
            {"pointer": "/a", "rule": "r.one", "message": "one"},
            {"pointer": "/b", "rule": "r.two", "message": "two"},
        ],
        "pluginId": "plugin_a_abc123",
    }
    assert headers == {"Content-Type": "application/problem+json"}


def test_an_extension_does_not_replace_a_standard_member() -> None:
    error = HotplugError("No.", extensions={"status": 200, "requestId": "forged"})
    document, _ = problem(error, instance="/x", request_id="r-1")
    assert (document["status"], document["requestId"]) == (500, "r-1")


def test_401_names_the_scheme_and_503_when_to_come_back() -> None:
    _, unauthenticated = problem(errors.Unauthenticated(), instance="/", request_id="r")
    _, away = problem(errors.Unavailable(retry_after=2), instance="/", request_id="r")
    assert unauthenticated["WWW-Authenticate"] == 'Bearer realm="hotplug"'
    assert away["Retry-After"] == "2"


def test_405_names_the_methods_that_there_are() -> None:
    error = errors.MethodNotAllowed(extensions={"allow": ["GET", "POST"]})
    document, headers = problem(error, instance="/", request_id="r")
    assert (headers["Allow"], document["allow"]) == ("GET, POST", ["GET", "POST"])
    _, headers = problem(errors.MethodNotAllowed(), instance="/", request_id="r")
    assert "Allow" not in headers


def test_a_name_of_a_megabyte_does_not_come_back_with_each_violation_below_it() -> None:
    body = json.dumps({"k" * 400_000: [{"a": 1}] * 100})[:-3] + ', "b": 1, "b": 2}]}'
    doubled = body.replace('"a": 1', '"a": 1, "a": 2')
    with pytest.raises(errors.Invalid) as caught:
        strict_json.parse(doubled.encode(), max_bytes=1_000_000)
    document, _ = problem(caught.value, instance="/x", request_id="r")
    assert len(document["errors"]) == 100
    assert len(json.dumps(document)) < 300_000
    first = document["errors"][0]
    assert (len(first["pointer"]), first["pointer"][:3], first["pointer"][-1]) == (1_024, "/kk", "…")
    assert Violation("/a", "r", "m" * 5_000).as_dict()["message"] == "m" * 1_023 + "…"
    assert Violation("/" + "a" * 1_023, "r", "m").as_dict()["pointer"] == "/" + "a" * 1_023
