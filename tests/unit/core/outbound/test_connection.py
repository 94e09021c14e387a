from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta

import pytest

from chalicelib.core.errors import Forbidden, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound import connection, lookup
from chalicelib.core.outbound.client import HttpOut
from tests.internet import OK, A, Authority, B, Internet, client, header_of, redirect

# -- time ------------------------------------------------------------------------------------------------------


def test_a_slow_drip_ends_with_the_whole_time(internet: Internet) -> None:
    def drip(conn: socket.socket, request: bytes) -> None:
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(100):
            conn.sendall(b"a")
            time.sleep(0.05)

    internet.serve("a.example", 80, drip)
    with pytest.raises(UpstreamTimeout):
        client(internet, total_timeout_s=0.4, read_timeout_s=10).request(
            "GET", "http://a.example/", headers={}
        )


def test_dripping_headers_end_with_the_time_of_the_call(internet: Internet) -> None:
    def drip(conn: socket.socket, request: bytes) -> None:
        for _ in range(100):
            conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.05)
        conn.sendall(OK)

    internet.serve("a.example", 80, drip)
    with pytest.raises(UpstreamTimeout):
        client(internet).request("GET", "http://a.example/", headers={}, timeout_s=0.4)


def test_redirects_share_one_time(internet: Internet) -> None:
    def slow(conn: socket.socket, request: bytes) -> None:
        time.sleep(0.2)
        conn.sendall(redirect(302, "/"))

    server = internet.serve("a.example", 80, slow)
    with pytest.raises(UpstreamTimeout):
        client(internet, total_timeout_s=0.5).request("GET", "http://a.example/", headers={})
    assert server.connections < 6


def test_a_call_cannot_ask_for_more_time_than_the_client_gives(internet: Internet) -> None:
    internet.serve("a.example", 80, lambda conn, request: time.sleep(1))
    with pytest.raises(UpstreamTimeout):
        client(internet, total_timeout_s=0.2).request("GET", "http://a.example/", headers={}, timeout_s=60)


def test_silence_ends_with_the_read_time(internet: Internet) -> None:
    internet.serve("a.example", 80, lambda conn, request: time.sleep(1))
    with pytest.raises(UpstreamTimeout):
        client(internet, read_timeout_s=0.2).request("GET", "http://a.example/", headers={})


def test_a_server_that_does_not_take_the_body_is_left(internet: Internet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as full:  # accepts in the kernel, nobody reads
        internet.names["a.example"] = [(A,)]
        internet.servers[A, 80] = full.getsockname()[1]
        with pytest.raises(UpstreamTimeout):
            client(internet, read_timeout_s=0.2).request(
                "PUT", "http://a.example/", headers={}, body=b"a" * 10 * 1024 * 1024
            )


def test_a_hanging_resolver_is_left(internet: Internet) -> None:
    release = threading.Event()

    def hang(host: str, port: int) -> tuple[str, ...]:
        release.wait(5)
        return (A,)

    internet.serve("a.example", 80, OK)
    out = HttpOut(resolver=hang, dial=internet.dial, connect_timeout_s=0.1)
    with pytest.raises(UpstreamTimeout):
        out.request("GET", "http://a.example/", headers={})
    release.set()
    assert internet.dialled == []


def test_a_silent_handshake_ends_with_the_connect_time(internet: Internet, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        internet.names["a.example"] = [(A,)]
        internet.servers[A, 443] = mute.getsockname()[1]
        out = client(internet, connect_timeout_s=0.2, tls_context=authority.trusted())
        with pytest.raises(UpstreamTimeout):
            out.request("GET", "https://a.example/", headers={})


# -- connections -----------------------------------------------------------------------------------------------


def test_the_next_address_is_tried_when_one_refuses(internet: Internet) -> None:
    internet.serve("a.example", 80, OK, at=B)
    internet.names["a.example"] = [("2606:4700::1111", A, B)]
    assert client(internet).request("GET", "http://a.example/", headers={}).status == 200
    assert internet.dialled == [("2606:4700::1111", 80), (A, 80), (B, 80)]


def test_an_address_that_swallows_packets_leaves_time_for_the_next(internet: Internet) -> None:
    given: list[float] = []

    def dial(address: str, port: int, timeout_s: float) -> socket.socket:
        given.append(timeout_s)
        raise TimeoutError

    internet.names["a.example"] = [(A, B)]
    out = HttpOut(resolver=internet.resolve, dial=dial, connect_timeout_s=2)
    with pytest.raises(UpstreamTimeout):
        out.request("GET", "http://a.example/", headers={})
    assert len(given) == 2
    assert given[0] <= 1 < given[1] <= 2


def test_few_of_many_addresses_are_tried_and_all_are_checked(internet: Internet) -> None:
    many = tuple(f"93.184.216.{n}" for n in range(100))
    internet.names["a.example"] = [many, (*many, "10.0.0.1")]
    out = client(internet)
    with pytest.raises(UpstreamFailed) as caught:
        out.request("GET", "http://a.example/", headers={})
    assert caught.value.code == "http.connect_failed"
    assert len(internet.dialled) == 4
    with pytest.raises(Forbidden):
        out.request("GET", "http://a.example/", headers={})


@pytest.mark.parametrize("answer", [None, ()])
def test_a_name_that_does_not_resolve(answer: tuple[str, ...] | None, internet: Internet) -> None:
    if answer is not None:
        internet.names["a.example"] = [answer]
    with pytest.raises(UpstreamFailed) as caught:
        client(internet).request("GET", "http://a.example/", headers={})
    assert caught.value.code == "http.connect_failed"


def test_the_real_resolver_and_the_real_dial_agree_on_localhost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert "127.0.0.1" in lookup.system("localhost", port)
        connection.dial("127.0.0.1", port, 1).close()
    with pytest.raises(ConnectionRefusedError):
        connection.dial("127.0.0.1", port, 1)


# -- TLS -------------------------------------------------------------------------------------------------------


def test_the_certificate_is_verified_against_the_name_and_sni_is_the_name(
    internet: Internet, authority: Authority
) -> None:
    seen: list[str | None] = []
    server = internet.serve("a.example", 443, OK, tls=authority.server(["a.example"], seen))
    answer = client(internet, tls_context=authority.trusted()).request(
        "GET", "https://A.example/x", headers={}
    )
    assert (answer.status, answer.url) == (200, "https://a.example/x")
    assert seen == ["a.example"]
    assert header_of(server.requests[0], "host") == "a.example"
    assert internet.dialled == [(A, 443)]


def test_a_certificate_for_an_address(internet: Internet, authority: Authority) -> None:
    internet.serve("unused.example", 8443, OK, tls=authority.server([A], []))
    out = client(internet, tls_context=authority.trusted())
    assert out.request("GET", f"https://{A}:8443/", headers={}).status == 200
    assert internet.resolved == []


@pytest.mark.parametrize("names", [["b.example"], ["sub.a.example"], [A], ["*.a.example"]])
def test_a_certificate_for_another_name_is_refused(
    names: list[str], internet: Internet, authority: Authority
) -> None:
    server = internet.serve("a.example", 443, OK, tls=authority.server(names, []))
    with pytest.raises(UpstreamFailed) as caught:
        client(internet, tls_context=authority.trusted()).request(
            "GET", "https://a.example/", headers={"Authorization": "s3cret"}, retries=3
        )
    assert caught.value.code == "http.tls_failed"
    assert server.connections == 1
    assert server.requests == []


def test_an_expired_certificate_is_refused(internet: Internet, authority: Authority) -> None:
    internet.serve("a.example", 443, OK, tls=authority.server(["a.example"], [], ends=timedelta(days=-1)))
    with pytest.raises(UpstreamFailed) as caught:
        client(internet, tls_context=authority.trusted()).request("GET", "https://a.example/", headers={})
    assert caught.value.code == "http.tls_failed"


def test_a_stranger_among_the_authorities_is_refused_by_default(
    internet: Internet, authority: Authority
) -> None:
    internet.serve("a.example", 443, OK, tls=authority.server(["a.example"], []))
    with pytest.raises(UpstreamFailed) as caught:
        client(internet).request("GET", "https://a.example/", headers={})
    assert caught.value.code == "http.tls_failed"


def test_a_server_without_tls_is_refused(internet: Internet, authority: Authority) -> None:
    internet.serve("a.example", 443, OK)
    with pytest.raises(UpstreamFailed) as caught:
        client(internet, tls_context=authority.trusted()).request("GET", "https://a.example/", headers={})
    assert caught.value.code == "http.tls_failed"
