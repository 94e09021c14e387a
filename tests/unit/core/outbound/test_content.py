from __future__ import annotations

import gzip
import socket
import zlib

import pytest

from chalicelib.core.errors import UpstreamFailed
from tests.internet import A, Answer, Internet, Server, client, header_of


def zipped(content: bytes) -> bytes:
    """Gzip with a fixed date: parameter ids made of bytes must be the same in every test process."""
    return gzip.compress(content, mtime=0)


def test_the_answer(internet: Internet) -> None:
    internet.serve(
        "api.example",
        80,
        b"HTTP/1.1 418 Teapot\r\nX-A: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )
    answer = client(internet).request("GET", "http://API.example:80", headers={})
    assert (answer.status, answer.body, answer.url) == (418, b"abcde", "http://api.example/")
    assert answer.headers == (("x-a", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"))
    assert (answer.header("X-a"), answer.header("X-b")) == ("1", None)
    assert answer.duration_ms >= 0


def plain(headers: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def test_a_compressed_answer_is_opened(internet: Internet) -> None:
    packed = zipped(b"a" * 300_000) + zipped(b"b")
    server = internet.serve("api.example", 80, plain("Content-Encoding: GZip\r\nETag: x\r\n", packed))
    answer = client(internet).request("GET", "http://api.example/", headers={})
    assert answer.body == b"a" * 300_000 + b"b"
    assert answer.headers == (("etag", "x"),)
    assert header_of(server.requests[0], "accept-encoding") == "gzip"


def test_a_head_keeps_the_length_that_it_asked_for(internet: Internet) -> None:
    internet.serve(
        "api.example", 80, b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\nContent-Encoding: br\r\n\r\n"
    )
    answer = client(internet).request("HEAD", "http://api.example/", headers={})
    assert (answer.body, answer.header("content-length")) == (b"", "9999999")


BOMB = zipped(b"\0" * 2_000_000)


def endless(conn: socket.socket, request: bytes) -> None:
    conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(2000):
        conn.sendall(b"a" * 10_000)


def endless_nothing(conn: socket.socket, request: bytes) -> None:
    """Gzip members that hold nothing: the decompressed count never moves."""
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
    for _ in range(2000):
        conn.sendall(zipped(b"") * 500)


@pytest.mark.parametrize(
    "answer",
    [
        plain("", b"a" * 1_000_001),
        endless,
        endless_nothing,
        plain("Content-Encoding: gzip\r\n", BOMB),
        plain("Content-Encoding: gzip\r\n", zipped(b"\0" * 600_000) * 2),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"7a120\r\n" + b"a" * 500_000 + b"\r\n"
        b"7a121\r\n" + b"a" * 500_001 + b"\r\n0\r\n\r\n",
    ],
    ids=["length", "endless", "endless-nothing", "bomb", "bomb-of-members", "chunked"],
)
def test_an_oversized_answer_is_cut_off(answer: Answer, internet: Internet) -> None:
    internet.serve("api.example", 80, answer)
    with pytest.raises(UpstreamFailed) as caught:
        client(internet, max_response_bytes=1_000_000).request("GET", "http://api.example/", headers={})
    assert caught.value.code == "http.response_too_large"


def test_an_answer_of_exactly_the_limit_is_taken(internet: Internet) -> None:
    internet.serve(
        "api.example",
        80,
        plain("", b"a" * 1000),
        plain("Content-Encoding: gzip\r\n", zipped(b"a" * 1000)),
    )
    out = client(internet, max_response_bytes=1000)
    assert [len(out.request("GET", "http://api.example/", headers={}).body) for _ in range(2)] == [1000, 1000]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        plain("Content-Encoding: gzip\r\n", BOMB[:500]),
        plain("Content-Encoding: gzip\r\n", b"not gzip"),
        plain("Content-Encoding: gzip\r\n", zipped(b"a") + b"trailing"),
        plain("Content-Encoding: gzip\r\n", zlib.compress(b"a")),
        plain("Content-Encoding: gzip, gzip\r\n", zipped(zipped(b"a"))),
        plain("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", zipped(zipped(b"a"))),
        plain("Content-Encoding: br\r\n", b"\x0b\x00\x80a\x03"),
    ],
)
def test_what_is_not_the_http_that_was_asked_for_is_a_protocol_error(
    answer: bytes, internet: Internet
) -> None:
    internet.serve("api.example", 80, answer)
    with pytest.raises(UpstreamFailed) as caught:
        client(internet, max_response_bytes=10_000_000).request("GET", "http://api.example/", headers={})
    assert caught.value.code == "http.protocol_error"


def test_an_early_answer_is_read_although_the_request_was_not_taken_whole(internet: Internet) -> None:
    server = Server(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", whole=False)
    internet.running.append(server)
    internet.servers[A, 80] = server.port
    answer = client(internet).request("POST", f"http://{A}/", headers={}, body=b"a" * 9_000_000)
    assert answer.status == 413
    assert len(server.requests[0]) < 9_000_000
