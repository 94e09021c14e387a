from __future__ import annotations

import ssl

import pytest

from chalicelib.core.errors import Forbidden, HotplugError, Invalid, UpstreamFailed
from tests.internet import OK, A, Authority, B, Internet, client, header_of, redirect

CREDENTIALS = {
    "Authorization": "Bearer s3cret",
    "Cookie": "s=s3cret",
    "X-Api-Key": "s3cret",
    "Accept": "text/plain",
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_origin_keeps_the_headers(
    status: int, method: str, internet: Internet
) -> None:
    done = OK if method == "GET" else b"HTTP/1.1 200 OK\r\n\r\n"
    server = internet.serve("a.example", 80, redirect(status, "/next?x#y"), done)
    answer = client(internet).request(method, "http://a.example/", headers=CREDENTIALS)
    assert (answer.status, answer.url) == (200, "http://a.example/next?x")
    assert server.requests[1].startswith(f"{method} /next?x HTTP/1.1\r\n".encode())
    assert header_of(server.requests[1], "authorization") == "Bearer s3cret"
    assert internet.resolved == ["a.example", "a.example"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_other_methods_are_given_the_redirect_itself(status: int, method: str, internet: Internet) -> None:
    server = internet.serve("a.example", 80, redirect(status, "http://b.example/"))
    answer = client(internet).request(method, "http://a.example/", headers={}, body=b"x")
    assert (answer.status, answer.header("location")) == (status, "http://b.example/")
    assert server.connections == 1


@pytest.mark.parametrize("status", [300, 304, 305, 306])
def test_other_statuses_are_no_redirects(status: int, internet: Internet) -> None:
    internet.serve("a.example", 80, redirect(status, "http://b.example/"))
    assert client(internet).request("GET", "http://a.example/", headers={}).status == status


def test_a_redirect_without_a_place_is_an_answer(internet: Internet) -> None:
    internet.serve("a.example", 80, b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")
    assert client(internet).request("GET", "http://a.example/", headers={}).status == 302


@pytest.mark.parametrize(
    "place", ["http://b.example/", "//b.example/", "http://a.example:8080/", "http://sub.a.example/"]
)
def test_another_origin_sees_no_credentials_and_no_body(place: str, internet: Internet) -> None:
    internet.serve("a.example", 80, redirect(307, place))
    other = internet.serve("b.example", 80, OK, at=B)
    internet.names["sub.a.example"] = [(B,)]
    internet.servers[A, 8080] = other.port
    answer = client(internet).request("GET", "http://a.example/", headers=CREDENTIALS, body=b"s3cret")
    assert answer.status == 200
    (request,) = other.requests
    assert b"s3cret" not in request
    assert header_of(request, "accept") == "text/plain"
    assert header_of(request, "host") == place.partition("//")[2].rstrip("/")


def test_the_way_back_does_not_bring_the_credentials_back(internet: Internet) -> None:
    first = internet.serve("a.example", 80, redirect(302, "http://b.example/"), OK)
    internet.serve("b.example", 80, redirect(302, "http://a.example/again"), at=B)
    client(internet).request("GET", "http://a.example/", headers=CREDENTIALS)
    assert b"s3cret" in first.requests[0]
    assert b"s3cret" not in first.requests[1]


@pytest.mark.parametrize(
    ("place", "error", "code"),
    [
        ("http://127.0.0.1/", Forbidden, "http.forbidden_address"),
        ("http://169.254.169.254/latest/", Forbidden, "http.forbidden_address"),
        ("http://[::ffff:127.0.0.1]/", Forbidden, "http.forbidden_address"),
        ("//inside.example/", Forbidden, "http.forbidden_address"),
        ("http://2130706433/", Invalid, "http.invalid_url"),
        ("http://u:p@b.example/", Invalid, "http.invalid_url"),
        ("/\\127.0.0.1/", Invalid, "http.invalid_url"),
        ("https:b.example", Invalid, "http.invalid_url"),
        ("file:///etc/passwd", Invalid, "http.invalid_url"),
        ("gopher://127.0.0.1:6379/_INFO", Invalid, "http.invalid_url"),
        ("http://b.example/\xfc", Invalid, "http.invalid_url"),
    ],
)
def test_a_redirect_is_checked_like_a_first_url(
    place: str, error: type[HotplugError], code: str, internet: Internet
) -> None:
    internet.serve("a.example", 80, redirect(302, place))
    internet.serve("inside.example", 80, OK, at="127.0.0.1")
    with pytest.raises(error) as caught:
        client(internet).request("GET", "http://a.example/", headers={})
    assert caught.value.code == code
    assert internet.dialled == [(A, 80)]


def test_a_redirect_is_held_to_the_grant(internet: Internet) -> None:
    internet.serve("a.example", 80, redirect(302, "http://b.example/"))
    internet.serve("b.example", 80, OK, at=B)
    with pytest.raises(Forbidden) as caught:
        client(internet).request("GET", "http://a.example/", headers={}, allowed_hosts=["a.example"])
    assert caught.value.code == "http.host_not_granted"
    assert internet.dialled == [(A, 80)]


def test_five_redirects_are_followed_and_a_sixth_is_not(internet: Internet) -> None:
    five = internet.serve("five.example", 80, *[redirect(302, "/")] * 5, OK)
    six = internet.serve("six.example", 80, redirect(302, "/"), at=B)
    assert client(internet).request("GET", "http://five.example/", headers={}).body == b"ok"
    with pytest.raises(UpstreamFailed) as caught:
        client(internet).request("GET", "http://six.example/", headers={})
    assert caught.value.code == "http.redirect_refused"
    assert (five.connections, six.connections) == (6, 6)


def test_a_redirect_from_http_to_https_drops_the_credentials(
    internet: Internet, authority: Authority
) -> None:
    internet.serve("a.example", 80, redirect(301, "https://a.example/"))
    safe = internet.serve("a.example", 443, OK, tls=authority.server(["a.example"], []))
    out = client(internet, tls_context=authority.trusted())
    assert out.request("GET", "http://a.example/", headers=CREDENTIALS).status == 200
    assert b"s3cret" not in safe.requests[0]


@pytest.mark.parametrize("place", ["http://a.example/", "http://b.example/", "http://a.example:443/"])
def test_a_redirect_from_https_to_http_is_refused(
    place: str, internet: Internet, authority: Authority
) -> None:
    internet.serve("a.example", 443, redirect(302, place), tls=authority.server(["a.example"], []))
    plain_server = internet.serve("a.example", 80, OK)
    with pytest.raises(UpstreamFailed) as caught:
        client(internet, tls_context=authority.trusted()).request("GET", "https://a.example/", headers={})
    assert caught.value.code == "http.redirect_refused"
    assert plain_server.connections == 0


def test_a_redirect_among_https_servers(internet: Internet, authority: Authority) -> None:
    seen: list[str | None] = []
    internet.serve("a.example", 443, redirect(302, "//b.example/"), tls=authority.server(["a.example"], seen))
    other = internet.serve("b.example", 443, OK, at=B, tls=authority.server(["b.example"], seen))
    out = client(internet, tls_context=authority.trusted())
    assert out.request("GET", "https://a.example/", headers=CREDENTIALS).url == "https://b.example/"
    assert seen == ["a.example", "b.example"]
    assert b"s3cret" not in other.requests[0]


def test_a_patient_client_trusts_as_the_one_it_was_made_of(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []

    def context() -> ssl.SSLContext:
        made.append(ssl.create_default_context())
        return made[-1]

    monkeypatch.setattr("httpcore.default_ssl_context", context)
    internet.serve("a.example", 443, OK)
    out = client(internet)
    # The system's authorities are read once, not by each call of a model: that takes 40 ms.
    for one in (out.patient(9), out.patient(9), out):
        with pytest.raises(UpstreamFailed):
            one.request("GET", "https://a.example/", headers={})
    assert len(made) == 1
