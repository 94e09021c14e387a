"""Server-side request forgery (CWE-918): every vector, through every way that the client offers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from chalicelib.core.errors import Forbidden, HotplugError, Invalid, UpstreamTimeout
from chalicelib.core.outbound.client import HttpOut
from tests.internet import A, Authority, Internet, client
from tests.ssrf_trap import Trap
from tests.ssrf_vectors import FORBIDDEN, NAMES, REDIRECTS, VECTORS, Vector

# What the table must try at the least.
KINDS = {
    "decimal", "octal", "hex", "mixed-bases", "short", "overflow", "mapped", "compatible", "6to4", "nat64", "teredo",
    "zone-id", "trailing-dot", "case", "userinfo", "backslash", "fragment", "unicode", "metadata", "runtime-api",
    "loopback", "private", "link-local", "multicast", "vpc", "name", "injection", "scheme",
}  # fmt: skip


@pytest.fixture
def trap() -> Iterator[Trap]:
    with Trap() as set_trap:
        yield set_trap


def test_the_table_is_long_and_has_every_kind() -> None:
    assert len(VECTORS) == len({vector.id for vector in VECTORS}) == len({v.url for v in VECTORS}) >= 80
    assert {vector.kind for vector in VECTORS} >= KINDS
    assert len(REDIRECTS) >= 80


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_a_request_connects_nowhere(vector: Vector, trap: Trap) -> None:
    with pytest.raises(Forbidden if vector.code == FORBIDDEN else Invalid) as caught:
        trap.client().request("GET", vector.url, headers={}, retries=1)
    assert caught.value.code == vector.code
    trap.assert_untouched()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_a_stream_connects_nowhere(vector: Vector, trap: Trap) -> None:
    expected = Forbidden if vector.code == FORBIDDEN else Invalid
    out = trap.client()
    with pytest.raises(expected) as caught, out.stream("POST", vector.url, headers={}, body=b"{}"):
        pass
    assert caught.value.code == vector.code
    trap.assert_untouched()


@pytest.mark.parametrize("streamed", [False, True], ids=["request", "stream"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_of_any_kind_leads_anywhere(status: int, method: str, streamed: bool) -> None:
    codes = {}
    with Trap() as trap, trap.redirecting() as start:
        out = trap.client()
        for number, vector in enumerate(REDIRECTS):
            codes[vector.id] = followed(out, method, start.url(status, number), streamed)
        assert start.server.connections == len(REDIRECTS)
        trap.assert_untouched()
    assert codes == {vector.id: vector.code for vector in REDIRECTS}


def followed(out: HttpOut, method: str, url: str, streamed: bool) -> str | int:
    try:
        if streamed:
            with out.stream(method, url, headers={}) as answer:
                return answer.status
        return out.request(method, url, headers={}).status
    except HotplugError as error:
        return error.code


# -- the trap would have seen it -------------------------------------------------------------------------------


def test_the_trap_sees_what_the_client_connects_to(trap: Trap) -> None:
    with pytest.raises(UpstreamTimeout):
        trap.client().request("GET", "http://public.example/", headers={})
    assert trap.connects == [("127.0.0.1", trap.port)]
    with pytest.raises(AssertionError):
        trap.assert_untouched()


def test_the_trap_sees_what_goes_past_the_client(trap: Trap) -> None:
    with socket.socket() as sock:
        sock.connect_ex(("127.0.0.1", 1))
    assert trap.connects == [("127.0.0.1", 1)]


def test_the_redirecting_server_is_followed_where_it_may(trap: Trap) -> None:
    out = trap.client(private_endpoints=["127.0.0.1:80"])
    with trap.redirecting() as start, pytest.raises(UpstreamTimeout):
        out.request("GET", start.url(302, index("http://127.0.0.1/")), headers={})
    assert trap.accepted() == 1


def index(url: str) -> int:
    return next(number for number, vector in enumerate(REDIRECTS) if vector.url == url)


# -- names -----------------------------------------------------------------------------------------------------


def test_no_name_of_the_table_is_public() -> None:
    assert {vector.url for vector in VECTORS if vector.kind == "name"} == {
        f"http://{name}/latest/meta-data/" for name in NAMES
    }


def test_a_stream_to_a_rebinding_name_goes_to_the_address_that_was_checked(internet: Internet) -> None:
    good = internet.serve("rebind.example", 80, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    bad = internet.serve("inside.example", 80, b"", at="127.0.0.1")
    internet.names["rebind.example"] = [(A,), ("127.0.0.1",)]
    out = client(internet)
    with out.stream("GET", "http://rebind.example/", headers={}) as answer:
        assert answer.status == 200
    with pytest.raises(Forbidden), out.stream("GET", "http://rebind.example/", headers={}):
        pass
    assert (good.connections, bad.connections, internet.dialled) == (1, 0, [(A, 80)])


# -- what is allowed still works -------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["request", "stream"])
def test_an_allowed_server_is_reached_over_tls_by_its_name(
    streamed: bool, internet: Internet, authority: Authority
) -> None:
    seen: list[str | None] = []
    tls = authority.server(["api.example"], seen)
    server = internet.serve("api.example", 443, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tls=tls)
    internet.names["other.example"] = [(A,)]
    out = client(internet, tls_context=authority.trusted())
    assert followed(out, "GET", "https://API.example/", streamed) == 200
    assert seen == ["api.example"]
    assert b"\r\nHost: api.example\r\n" in server.requests[0]
    # The same server under a name that its certificate does not have.
    assert followed(out, "GET", "https://other.example/", streamed) == "http.tls_failed"
    assert internet.dialled == [(A, 443), (A, 443)]


def test_an_allow_listed_server_is_reached_over_tls(internet: Internet, authority: Authority) -> None:
    tls = authority.server(["inside.example"], [])
    internet.serve(
        "inside.example", 8443, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", at="10.0.0.7", tls=tls
    )
    out = client(internet, tls_context=authority.trusted(), private_endpoints=["inside.example:8443"])
    assert out.request("GET", "https://inside.example:8443/", headers={}).status == 200
    with pytest.raises(Forbidden):
        out.request("GET", "https://10.0.0.7:8443/", headers={})
