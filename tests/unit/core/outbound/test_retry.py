from __future__ import annotations

import socket
import struct
import time
from datetime import UTC, datetime

import pytest

from chalicelib.core.errors import Forbidden, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.client import HttpOut, OutResponse
from chalicelib.core.outbound.retry import Repeat, retry_after_s
from tests.internet import OK, A, Answer, Internet, Server, client

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "failure", [BUSY, BUSY.replace(b"503", b"502"), BUSY.replace(b"503", b"504"), b"", b"junk\r\n"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_passing_failure_is_tried_again_with_growing_jitter(
    failure: bytes, method: str, internet: Internet
) -> None:
    slept: list[float] = []
    server = internet.serve("a.example", 80, failure, failure, OK)
    answer = client(internet, sleep=slept.append).request(method, "http://a.example/", headers={}, retries=2)
    assert (answer.status, server.connections) == (200, 3)
    assert len(slept) == 2
    assert 0 <= slept[0] <= 0.2
    assert 0 <= slept[1] <= 0.4


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_is_not_idempotent_is_sent_once(method: str, internet: Internet) -> None:
    server = internet.serve("a.example", 80, BUSY, OK)
    assert client(internet).request(method, "http://a.example/", headers={}, retries=5).status == 503
    assert server.connections == 1


def test_the_last_answer_is_returned_when_no_retry_is_left(internet: Internet) -> None:
    server = internet.serve("a.example", 80, BUSY)
    out = client(internet, sleep=lambda _: None)
    assert out.request("GET", "http://a.example/", headers={}, retries=2).status == 503
    assert out.request("GET", "http://a.example/", headers={}).status == 503
    assert server.connections == 4


@pytest.mark.parametrize(
    "answer", [BUSY.replace(b"Busy\r\n", b"Busy\r\nRetry-After: 9\r\n"), BUSY.replace(b"503", b"500"), OK]
)
def test_other_answers_are_not_asked_again(answer: bytes, internet: Internet) -> None:
    server = internet.serve("a.example", 80, answer)
    client(internet).request("GET", "http://a.example/", headers={}, retries=3)
    assert server.connections == 1


def test_a_refusal_is_not_tried_again(internet: Internet) -> None:
    internet.names["a.example"] = [("10.0.0.1",), (A,)]
    with pytest.raises(Forbidden):
        client(internet).request("GET", "http://a.example/", headers={}, retries=3)
    assert internet.resolved == ["a.example"]


def test_no_retry_begins_after_the_whole_time(internet: Internet) -> None:
    server = internet.serve("a.example", 80, lambda conn, request: time.sleep(1))
    with pytest.raises(UpstreamTimeout):
        client(internet, total_timeout_s=0.3).request("GET", "http://a.example/", headers={}, retries=5)
    assert server.connections == 1


# -- how many calls arrive -----------------------------------------------------------------------------------

IDEMPOTENT, OTHERS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"), ("POST", "PATCH")
RETRIES = 2


def reset(conn: socket.socket, request: bytes) -> None:
    """End the connection with a TCP reset."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silence(conn: socket.socket, request: bytes) -> None:
    """Answer nothing until the client has gone."""
    conn.recv(1)


def status(number: int, headers: str = "") -> bytes:
    return f"HTTP/1.1 {number} X\r\nContent-Length: 0\r\n{headers}\r\n".encode()


# What a server does, and whether an idempotent call is made again.
KINDS: dict[str, tuple[Answer, bool]] = {
    "closes": (b"", True),
    "resets": (reset, True),
    "silent": (silence, True),
    "no HTTP": (b"220 mail.example ESMTP\r\n", True),
    "502": (status(502), True),
    "503": (status(503), True),
    "504": (status(504), True),
    "503 with its own time": (status(503, "Retry-After: 9\r\n"), False),
    "500": (status(500), False),
    "501": (status(501), False),
    "429": (status(429), False),
    "408": (status(408), False),
    "404": (status(404), False),
    "200": (status(200), False),
    "303": (status(303), False),
}


@pytest.mark.parametrize("method", IDEMPOTENT + OTHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_how_many_calls_arrive(kind: str, method: str) -> None:
    answer, passing = KINDS[kind]
    server = Server(answer)
    try:
        out = HttpOut([f"127.0.0.1:{server.port}"], read_timeout_s=0.1, sleep=lambda _: None)
        try:
            out.request(method, f"http://127.0.0.1:{server.port}/", headers={}, retries=RETRIES)
        except (UpstreamFailed, UpstreamTimeout):
            assert passing
    finally:
        server.close()
    expected = 1 + RETRIES if passing and method in IDEMPOTENT else 1
    assert len(server.requests) == server.connections == expected
    assert all(request.startswith(f"{method} / HTTP/1.1\r\n".encode()) for request in server.requests)


@pytest.mark.parametrize("method", IDEMPOTENT + OTHERS)
def test_how_often_a_server_that_is_not_there_is_dialled(method: str, internet: Internet) -> None:
    internet.names["a.example"] = [(A,)]
    with pytest.raises(UpstreamFailed):
        client(internet, sleep=lambda _: None).request(
            method, "http://a.example/", headers={}, retries=RETRIES
        )
    assert len(internet.dialled) == (1 + RETRIES if method in IDEMPOTENT else 1)


def test_a_body_that_breaks_off_is_asked_for_again() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsh", status(200))
    try:
        out = HttpOut([f"127.0.0.1:{server.port}"], sleep=lambda _: None)
        answer = out.request("GET", f"http://127.0.0.1:{server.port}/", headers={}, retries=RETRIES)
    finally:
        server.close()
    assert (answer.status, server.connections) == (200, 2)


@pytest.mark.parametrize(
    ("broken", "arrived"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 1 + RETRIES),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 2000, 1),
    ],
    ids=["not gzip", "too long"],
)
def test_how_often_a_body_is_asked_for_that_stays_wrong(broken: bytes, arrived: int) -> None:
    server = Server(broken)
    try:
        out = HttpOut([f"127.0.0.1:{server.port}"], max_response_bytes=1000, sleep=lambda _: None)
        with pytest.raises(UpstreamFailed):
            out.request("GET", f"http://127.0.0.1:{server.port}/", headers={}, retries=RETRIES)
    finally:
        server.close()
    assert server.connections == arrived


# -- a request of which the caller says that it may be repeated -------------------------------------------------------

ONCE_MORE = Repeat(frozenset({429, 503}))


def limited(retry_after: str) -> bytes:
    return f"HTTP/1.1 429 X\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n".encode()


def test_a_post_is_repeated_only_where_its_caller_says_so(internet: Internet) -> None:
    slept: list[float] = []
    server = internet.serve("a.example", 80, BUSY, b"", limited("4"), OK)
    out = client(internet, sleep=slept.append)
    answer = out.request("POST", "http://a.example/", headers={}, body=b"x", retries=3, repeat=ONCE_MORE)
    assert (answer.status, server.connections) == (200, 4)
    assert slept[:2] == [pytest.approx(0.1, abs=0.1), pytest.approx(0.2, abs=0.2)]
    assert slept[2] == 4


def test_other_answers_than_its_caller_named_are_not_repeated(internet: Internet) -> None:
    server = internet.serve("a.example", 80, BUSY.replace(b"503", b"502"))
    out = client(internet)
    assert out.request("POST", "http://a.example/", headers={}, retries=3, repeat=ONCE_MORE).status == 502
    assert server.connections == 1


@pytest.mark.parametrize("told", ["61", "Fri, 01 Jan 2100 00:00:00 GMT", "999999999"])
def test_a_pause_that_would_end_too_late_is_not_begun(told: str, internet: Internet) -> None:
    slept: list[float] = []
    server = internet.serve("a.example", 80, limited(told), OK)
    out = client(internet, sleep=slept.append)
    assert out.request("POST", "http://a.example/", headers={}, retries=3, repeat=ONCE_MORE).status == 429
    assert (slept, server.connections) == ([], 1)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0),
        (" 7 ", 7),
        ("9999999999", None),
        ("Fri, 02 Jan 2026 00:01:00 GMT", 60),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 0),
        ("Fri, 02 Jan 2026 00:01:00", 60),
    ],
)
def test_retry_after_is_seconds_or_a_date(told: str | None, seconds: float | None) -> None:
    headers = () if told is None else (("retry-after", told),)
    answer = OutResponse(503, headers, b"", "http://a.example/", 1)
    assert retry_after_s(answer, datetime(2026, 1, 2, tzinfo=UTC)) == seconds
