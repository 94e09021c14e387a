from __future__ import annotations

import logging

import pytest

from chalicelib.core import guards
from chalicelib.core.errors import Invalid
from tests.internet import OK, Internet, client, header_of


def test_what_is_sent(internet: Internet) -> None:
    server = internet.serve("api.example", 8080, OK)
    client(internet).request(
        "post",
        "http://api.example:8080/a?b=c",
        headers={"X-Key": "grüße", "Content-Type": "text/plain"},
        body=b"hi",
    )
    (request,) = server.requests
    assert request.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nhi")
    expected = {
        "Host": "api.example:8080",
        "Content-Length": "2",
        "X-Key": "grüße",
        "Content-Type": "text/plain",
    }
    assert {name: header_of(request, name) for name in expected} == expected
    assert (header_of(request, "user-agent") or "").startswith("hotplug/")


def test_a_post_without_a_body_says_so_and_a_get_does_not(internet: Internet) -> None:
    server = internet.serve("api.example", 80, OK)
    client(internet).request("POST", "http://api.example/", headers={})
    client(internet).request("GET", "http://api.example/", headers={"user-agent": "mine"})
    assert [header_of(request, "content-length") for request in server.requests] == ["0", None]
    assert header_of(server.requests[1], "user-agent") == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Proxy-Authorization",
        "proxy-connection",
        "Accept-Encoding",
        "HTTP2-Settings",
    ],
)
def test_headers_of_the_connection_are_not_the_callers(name: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request("GET", "http://api.example/", headers={name: "1"})
    (violation,) = caught.value.errors
    assert (caught.value.code, violation.rule) == ("http.invalid_request", "http.header_reserved")
    assert violation.pointer == f"/headers/{name}"
    assert internet.resolved == []


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nX-Injected: 1",
        "a\nb",
        "a\rb",
        "\r\n",
        "a\x00b",
        "a\x7fb",
        " a",
        "a ",
        "\ta",
        "a\x0bb",
        "\u2028",
        "a\u010ab",
    ],
)
def test_a_header_value_cannot_begin_another_header(value: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request("GET", "http://api.example/", headers={"X-A": value})
    assert [violation.rule for violation in caught.value.errors] == ["http.header_value"]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ä", "a\x00", "(a)", "a\n", "Host "])
def test_a_header_name_is_a_token(name: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request("GET", "http://api.example/", headers={name: "1"})
    assert [violation.rule for violation in caught.value.errors] == ["http.header_name"]


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "", "GET / HTTP/1.1\r\nX: y", "PROPFIND"])
def test_other_methods_are_refused(method: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request(method, "http://api.example/", headers={})
    assert [violation.rule for violation in caught.value.errors] == ["http.method"]


def test_every_violation_is_reported_at_once(internet: Internet) -> None:
    headers = {"Host": "x", "X-A": "a\nb", "b c": "1", "x-a": "2", "T~": "\n", "Big": "a" * 70_000}
    with pytest.raises(Invalid) as caught:
        client(internet).request("BREW", "http://127.1/", headers=headers, body=b"a" * (10 * 1024 * 1024 + 1))
    assert [(violation.pointer, violation.rule) for violation in caught.value.errors] == [
        ("/url", "http.invalid_url"),
        ("/method", "http.method"),
        ("/body", "http.request_too_large"),
        ("/headers", "http.headers_too_large"),
        ("/headers/Host", "http.header_reserved"),
        ("/headers/X-A", "http.header_value"),
        ("/headers", "http.header_name"),
        ("/headers/x-a", "http.header_twice"),
        ("/headers/T~0", "http.header_value"),
    ]


def test_a_call_inside_a_unit_of_work_raises(internet: Internet) -> None:
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        client(internet).request("GET", "http://api.example/", headers={})


@pytest.mark.parametrize(
    "arguments", [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"retries": 6}, {"retries": -1}]
)
def test_bounds_of_the_arguments(arguments: dict[str, float], internet: Internet) -> None:
    with pytest.raises(ValueError, match="must"):
        client(internet).request("GET", "http://api.example/", headers={}, **arguments)  # type: ignore[arg-type]


def test_no_header_reaches_the_log(internet: Internet, caplog: pytest.LogCaptureFixture) -> None:
    internet.serve("api.example", 80, b"HTTP/1.1 200 OK\r\nSet-Cookie: s3cret-2\r\nContent-Length: 0\r\n\r\n")
    with caplog.at_level(logging.DEBUG):
        client(internet).request("GET", "http://api.example/", headers={"Authorization": "s3cret-1"})
    assert "s3cret" not in caplog.text
