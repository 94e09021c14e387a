from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.errors import Invalid
from chalicelib.core.outbound import client
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.tools.binding.arguments import Arguments
from chalicelib.tools.binding.plan import CONNECTION_HEADERS, CallPlan
from chalicelib.tools.binding.request import BoundRequest, accepted, bind
from chalicelib.tools.openapi.operation import Content, ResponseSpec
from tests.unit.tools.binding.operations import answer, body, found, operation, parameter, plan

BASE = "https://api.example.com/v1"


def path_plan(path: str = "/things/{id}", *names: str, **changes: Any) -> CallPlan:
    names = names or ("id",)
    return plan(*(parameter(name, "path", **changes) for name in names), path=path, method="GET")


def refused(call: CallPlan, arguments: Arguments) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        bind(call, arguments)
    assert caught.value.code == "tool.invalid_arguments"
    return found(caught.value)


def test_everything_in_its_place() -> None:
    call = plan(
        parameter("id", "path"),
        parameter("tags"),
        parameter("filter", style="deepObject"),
        parameter("X-Trace", "header"),
        parameter("theme", "cookie"),
        parameter("seen", "cookie"),
        path="/things/{id}/parts",
        method="PUT",
        body=body({"type": "object"}),
        responses=(answer(True),),
    )
    request = bind(
        call,
        Arguments(
            path={"id": "a b"},
            query={"tags": ["x", "y&z"], "filter": {"a": 1}},
            header={"X-Trace": [1, 2]},
            cookie={"theme": "d;rk", "seen": [1, 2]},
            body={"n": 1.5},
        ),
    )
    assert request.method == "PUT"
    assert request.url == BASE + "/things/a%20b/parts?tags=x&tags=y%26z&filter%5Ba%5D=1"
    assert request.headers == (
        ("Accept", "application/json"),
        ("X-Trace", "1,2"),
        ("Content-Type", "application/json"),
        ("Cookie", "theme=d%3Brk; seen=1; seen=2"),
    )
    assert request.body == b'{"n":1.5}'
    assert parse_url(request.url).host == "api.example.com"


def test_a_plain_request() -> None:
    assert bind(plan(method="GET"), Arguments()) == BoundRequest(
        "GET", BASE + "/things", (), (("Accept", "*/*"),), (), None
    )


def test_values_and_their_writing_are_told_of_at_once() -> None:
    call = plan(
        parameter("id", "path"),
        parameter("n", schema={"type": "integer"}),
        parameter("X-A", "header"),
        path="/{id}",
        body=body(True, "text/plain"),
    )
    arguments = Arguments(path={"id": ".."}, query={"n": "x"}, header={"X-A": "a\nb"}, body=[1])
    assert refused(call, arguments) == [
        ("/query/n", "schema.type"),
        ("/path/id", "argument.path"),
        ("/header/X-A", "argument.header_value"),
        ("/body", "argument.text"),
    ]


# -- the path --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a/b", "a%2Fb"),
        ("//evil.example", "%2F%2Fevil.example"),
        ("@evil.example", "%40evil.example"),
        ("\\evil", "%5Cevil"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("%2F", "%252F"),
        ("http://evil.example/", "http%3A%2F%2Fevil.example%2F"),
        ("é😀", "%C3%A9%F0%9F%98%80"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
        (";admin=true", "%3Badmin%3Dtrue"),
        ("a:b", "a%3Ab"),
        ("...", "..."),
        ("v1.0", "v1.0"),
        (["a", "b"], "a,b"),
        (True, "true"),
        (0, "0"),
    ],
)
def test_a_value_stays_in_its_segment(value: Any, expected: str) -> None:
    url = bind(path_plan(), Arguments(path={"id": value})).url
    assert url == f"{BASE}/things/{expected}"
    assert parse_url(url).origin == ("https", "api.example.com", 443)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "../admin",
        "a/../../admin",
        "..\\admin",
        "%2e%2e",
        "%2e%2e%2fadmin",
        "..;/admin",
        None,
        [],
        {},
        ["."],
        "a/.",
        "%252e%252e/",
    ],
)
def test_a_value_does_not_climb_and_is_not_empty(value: Any) -> None:
    assert refused(path_plan(), Arguments(path={"id": value})) == [("/path/id", "argument.path")]


def test_values_do_not_climb_together() -> None:
    call = path_plan("/things/{a}{b}", "a", "b")
    assert refused(call, Arguments(path={"a": ".", "b": "."})) == [
        ("/path/a", "argument.path"),
        ("/path/b", "argument.path"),
    ]
    assert bind(call, Arguments(path={"a": ".", "b": "x"})).url == BASE + "/things/.x"


def test_a_literal_dot_and_an_argument() -> None:
    assert refused(path_plan("/things/.{id}"), Arguments(path={"id": "."})) == [("/path/id", "argument.path")]


@pytest.mark.parametrize(
    ("style", "value", "expected"),
    [("label", "blue", ".blue"), ("matrix", ["a", "b"], ";id=a,b"), ("matrix", "", ";id")],
)
def test_styles_in_a_path(style: str, value: Any, expected: str) -> None:
    assert bind(path_plan(style=style), Arguments(path={"id": value})).url == f"{BASE}/things/{expected}"


@pytest.mark.parametrize("value", ["", ".", None])
def test_a_label_that_is_a_dot_segment(value: Any) -> None:
    assert refused(path_plan(style="label"), Arguments(path={"id": value})) == [("/path/id", "argument.path")]


def test_several_placeholders_and_odd_literals() -> None:
    call = path_plan("/a b/{x}.{y}/{x}?q#{y}", "x", "y")
    assert bind(call, Arguments(path={"x": "1", "y": "2"})).url == BASE + "/a%20b/1.2/1%3Fq%232"


def test_content_in_a_path() -> None:
    call = path_plan(media_type="application/json")
    assert (
        bind(call, Arguments(path={"id": {"a": "b/c"}})).url == BASE + "/things/%7B%22a%22%3A%22b%2Fc%22%7D"
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_argument_changes_anything_but_its_segment(value: str) -> None:
    try:
        request = bind(path_plan("/things/{id}/end"), Arguments(path={"id": value}))
    except Invalid:
        return
    target = parse_url(request.url)
    assert target.origin == ("https", "api.example.com", 443)
    assert target.path.startswith("/v1/things/") and target.path.endswith("/end")
    assert target.path.count("/") == 4
    assert "?" not in target.path


# -- query and cookies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        ({}, "", "q="),
        ({}, [], ""),
        ({"media_type": "application/json"}, {"a": ["é"]}, "q=%7B%22a%22%3A%5B%22%C3%A9%22%5D%7D"),
        ({"media_type": "application/json"}, "x", "q=%22x%22"),
        ({"media_type": "text/plain"}, "x y", "q=x%20y"),
        ({"media_type": "text/plain"}, 1, "q=1"),
        ({"allow_reserved": True}, "a/b&c#d", "q=a/b%26c%23d"),
        ({"style": "pipeDelimited"}, ["a", "b"], "q=a%7Cb"),
    ],
)
def test_a_query(changes: dict[str, Any], value: Any, expected: str) -> None:
    url = bind(plan(parameter("q", **changes)), Arguments(query={"q": value})).url
    assert url == BASE + "/things" + (f"?{expected}" if expected else "")


@pytest.mark.parametrize(
    ("others", "value"),
    [(["tenant"], {"tenant": "evil"}), (["f[a]"], {"a": "evil"})],
)
def test_an_object_does_not_speak_for_another_parameter(others: list[str], value: Any) -> None:
    style = "deepObject" if others == ["f[a]"] else "form"
    call = plan(parameter("f", style=style), *(parameter(name) for name in others))
    assert refused(call, Arguments(query={"f": value})) == [("/query/f", "argument.name_taken")]


def test_two_objects_do_not_speak_for_each_other() -> None:
    call = plan(parameter("f"), parameter("g"))
    assert refused(call, Arguments(query={"f": {"a": 1}, "g": {"a": 2}})) == [
        ("/query/g", "argument.name_taken")
    ]


def test_an_object_may_have_a_member_of_its_own_name() -> None:
    assert bind(plan(parameter("f")), Arguments(query={"f": {"f": 1}})).url == BASE + "/things?f=1"


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        ({}, "blue", "c=blue"),
        ({}, "a;b,c d\r\n", "c=a%3Bb%2Cc%20d%0D%0A"),
        ({}, ["a", "b"], "c=a; c=b"),
        ({}, {"x y": 1, "z": 2}, "x%20y=1; z=2"),
        ({"explode": False}, ["a", "b,"], "c=a,b%2C"),
        ({"media_type": "text/plain"}, "a%b", "c=a%b"),
        ({"media_type": "application/json"}, {"a": 1}, "c=%7B%22a%22%3A1%7D"),
        ({}, "", "c="),
    ],
)
def test_a_cookie(changes: dict[str, Any], value: Any, expected: str) -> None:
    request = bind(plan(parameter("c", "cookie", **changes)), Arguments(cookie={"c": value}))
    assert request.headers[-1] == ("Cookie", expected)


@pytest.mark.parametrize("value", ["a;b", "a,b", "a b", 'a"b', "a\\b", "a\nb", "é", "\0"])
def test_a_cookie_that_is_sent_as_it_is(value: str) -> None:
    call = plan(parameter("c", "cookie", media_type="text/plain"))
    assert refused(call, Arguments(cookie={"c": value})) == [("/cookie/c", "argument.cookie_value")]


def test_no_cookie_no_header() -> None:
    assert bind(plan(parameter("c", "cookie")), Arguments(cookie={"c": []})).headers == (("Accept", "*/*"),)


# -- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        ({}, "a b%20c", "a b%20c"),
        ({}, "caf\xe9", "caf\xe9"),
        ({}, "", ""),
        ({}, [1, True], "1,true"),
        ({"explode": True}, {"a": 1, "b": 2}, "a=1,b=2"),
        ({"media_type": "application/json"}, {"é": 1}, '{"\\u00e9":1}'),
        ({"media_type": "text/plain"}, "x", "x"),
    ],
)
def test_a_header(changes: dict[str, Any], value: Any, expected: str) -> None:
    request = bind(plan(parameter("X-A", "header", **changes)), Arguments(header={"X-A": value}))
    assert request.headers[1:] == (("X-A", expected),)


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nX-Evil: 1",
        "a\n",
        "\ra",
        "a\0b",
        "a\x7f",
        " a",
        "a ",
        "\ta",
        "€",
        "\u2028",
        "\u0130",
        {"a": "b\n"},
        ["x\r"],
    ],
)
@pytest.mark.parametrize("media_type", [None, "text/plain"])
def test_a_header_is_one_line(value: Any, media_type: str | None) -> None:
    if media_type and not isinstance(value, str):
        value = "\n"
    call = plan(parameter("X-A", "header", media_type=media_type))
    assert refused(call, Arguments(header={"X-A": value})) == [("/header/X-A", "argument.header_value")]


def test_a_header_without_members_is_left_out() -> None:
    call = plan(parameter("X-A", "header"))
    assert bind(call, Arguments(header={"X-A": []})).headers == (("Accept", "*/*"),)


def test_a_name_that_is_no_token() -> None:
    call = plan(parameter("X A", "header"))
    assert refused(call, Arguments(header={"X A": "x"})) == [("/header/X A", "argument.header_name")]


@pytest.mark.parametrize("name", [*sorted(CONNECTION_HEADERS - {"cookie"}), "proxy-x"])
def test_the_client_refuses_the_same_headers(name: str) -> None:
    """What no argument sets is what `core/outbound` would refuse: else the call fails later, with less to say."""
    with pytest.raises(Invalid) as caught:
        client.HttpOut().request("GET", "https://x.example", headers={name: "x"})
    assert found(caught.value) == [(f"/headers/{name}", "http.header_reserved")]


@pytest.mark.parametrize(
    ("responses", "expected"),
    [
        ((), "*/*"),
        (
            (answer(True, "200", "text/csv"), answer(True, "2XX", "application/json")),
            "application/json, text/csv",
        ),
        ((answer(True, "404"), answer(True, "default", "text/plain")), "text/plain"),
        ((answer(True, "200"), answer(True, "201")), "application/json"),
        ((answer(True, "200", "image/*"),), "image/*"),
        ((answer(True, "200", "a\r\nb/c"),), "*/*"),
        ((ResponseSpec("200", tuple(Content(f"a/{index}", True) for index in range(50))),), None),
    ],
)
def test_what_is_accepted(responses: tuple[ResponseSpec, ...], expected: str | None) -> None:
    said = accepted(operation(responses=responses))
    assert said == expected if expected else said.count(",") == 19


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [["x"] * 1_000_000, ["x" * 5_000] * 2, {"a": ["x"] * 9_000}], ids=len)
@pytest.mark.parametrize(
    ("location", "style", "explode"),
    [
        ("query", "form", True),
        ("query", "form", False),
        ("query", "pipeDelimited", False),
        ("query", "deepObject", True),
        ("path", "simple", False),
        ("path", "matrix", True),
        ("path", "label", False),
    ],
)
def test_a_url_has_a_length(location: Any, style: str, explode: bool, value: Any) -> None:
    call = plan(
        parameter("q", location, style=style, explode=explode), path="/{q}" if location == "path" else "/"
    )
    ((pointer, rule),) = refused(call, Arguments(**{location: {"q": value}}))
    nested = isinstance(value, dict) and style != "deepObject"
    assert rule == ("argument.nested" if nested else "argument.too_large")
    assert pointer in ("", f"/{location}/q", f"/{location}/q/a")


@pytest.mark.parametrize("location", ["header", "cookie"])
def test_a_header_has_a_length(location: Any) -> None:
    call = plan(parameter("q", location))
    assert refused(call, Arguments(**{location: {"q": ["x"] * 1_000_000}})) == [
        (f"/{location}/q", "argument.too_large")
    ]


def test_a_body_has_a_size() -> None:
    call = plan(body=body(True, "text/plain"))
    assert refused(call, Arguments(body="x" * (10 * 1024 * 1024 + 1))) == [("/body", "argument.too_large")]


# -- credentials -----------------------------------------------------------------------------------------------------


def test_credentials_take_the_place_of_arguments() -> None:
    call = plan(parameter("key"), parameter("free"), parameter("X-Key", "header"), parameter("sid", "cookie"))
    request = bind(
        call,
        Arguments(
            query={"key": "mine", "free": {"api_key": "mine"}}, header={"X-Key": "mine"}, cookie={"sid": "m"}
        ),
    )
    signed = (
        request.with_query("key", "a b&c")
        .with_query("api_key", "k")
        .with_header("x-key", "secret")
        .with_header("Authorization", "Bearer t")
        .with_cookie("sid", "s")
    )
    assert signed.url == BASE + "/things?key=a%20b%26c&api_key=k"
    assert signed.headers == (
        ("Accept", "*/*"),
        ("x-key", "secret"),
        ("Authorization", "Bearer t"),
        ("Cookie", "sid=s"),
    )
    assert request.url == BASE + "/things?key=mine&api_key=mine"


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("with_header", "X-Key", "tok\r\nX: 1"),
        ("with_header", "X-Key", "tök\u20ac"),
        ("with_header", "Host", "evil.example"),
        ("with_header", "Cookie", "a=b"),
        ("with_header", "X Key", "tok"),
        ("with_cookie", "sid", "tok;x"),
        ("with_cookie", "s=d", "tok"),
    ],
)
def test_a_credential_that_cannot_be_sent(place: str, name: str, value: str) -> None:
    with pytest.raises(Invalid) as caught:
        getattr(bind(plan(), Arguments()), place)(name, value)
    assert caught.value.code == "tool.invalid_credential"
    assert value not in str(caught.value.errors)


def test_nothing_secret_is_shown() -> None:
    request = (
        bind(plan(), Arguments())
        .with_query("k", "s3cret")
        .with_header("X", "s3cret")
        .with_cookie("c", "s3cret")
    )
    assert "s3cret" not in repr(request)
