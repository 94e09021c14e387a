"""Answers of servers that hang, drip, flood or lie, and how each ends. None of them may cost more than its limit."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

ONE_MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
# What a server may have handed over before nobody takes any more: the limit, and what the kernel holds.
MOST_TAKEN = 32 * ONE_MIB

Act = Callable[[socket.socket], int | None]


@dataclass(frozen=True)
class Hostile:
    """A server's behaviour.

    Parameters
    ----------
    act
        Answers; returns how many bytes it got rid of, where that matters.
    code, status
        How the call ends.
    """

    id: str
    act: Act
    code: str
    status: int = 502


def _send(*pieces: bytes) -> Act:
    def act(conn: socket.socket) -> None:
        for piece in pieces:
            conn.sendall(piece)

    return act


def _drip(head: bytes, piece: bytes) -> Act:
    """A byte now and then keeps every single wait short, and the whole endless."""

    def act(conn: socket.socket) -> None:
        conn.sendall(head)
        # Longer than any call waits.
        for _ in range(600):
            conn.sendall(piece)
            time.sleep(0.05)

    return act


def _flood(head: bytes, piece: bytes, most: int = 100 * ONE_MIB) -> Act:
    def act(conn: socket.socket) -> int:
        conn.sendall(head)
        sent = 0
        try:
            while sent < most:
                conn.sendall(piece)
                sent += len(piece)
        except OSError:
            pass  # the client has seen enough
        return sent

    return act


def _hang(conn: socket.socket) -> None:
    # Until the client goes.
    conn.recv(1)


def _reset(conn: socket.socket) -> None:
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    conn.close()


@cache
def _bomb() -> bytes:
    """100 MB of zeros, a thousandth of that as gzip; its Content-Length is true."""
    packed = gzip.compress(bytes(100 * ONE_MIB), 9)
    return HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed


def _send_bomb(conn: socket.socket) -> None:
    conn.sendall(_bomb())


def _packed(body: bytes, encoding: bytes = b"gzip") -> bytes:
    return HEAD + b"Content-Encoding: " + encoding + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


_GZIP = gzip.compress(b'"ok"')
_CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"
_TIMEOUT, _BROKEN, _LARGE = "upstream.timeout", "http.protocol_error", "http.response_too_large"

CASES: tuple[Hostile, ...] = (
    Hostile("hangs", _hang, _TIMEOUT, 504),
    Hostile("hangs-in-the-head", lambda conn: (conn.sendall(b"HTTP/1.1 200 OK\r\nX-"), _hang(conn))[1], _TIMEOUT, 504),
    Hostile(
        "hangs-in-the-body",
        lambda conn: (conn.sendall(HEAD + b"Content-Length: 9\r\n\r\n{"), _hang(conn))[1],
        _TIMEOUT,
        504,
    ),
    Hostile("drips-its-head", _drip(b"HTTP/1.1 200 OK\r\nX: ", b"a"), _TIMEOUT, 504),
    Hostile("drips-headers", _drip(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n"), _TIMEOUT, 504),
    Hostile("drips-its-body", _drip(HEAD + b"Content-Length: 100000\r\n\r\n", b" "), _TIMEOUT, 504),
    Hostile("drips-chunks", _drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), _TIMEOUT, 504),
    Hostile("drips-interim-answers", _drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), _TIMEOUT, 504),
    Hostile("sends-100-mb", _flood(HEAD + b"Content-Length: 104857600\r\n\r\n", b" " * 65536), _LARGE),
    Hostile("sends-100-mb-in-chunks", _flood(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", _CHUNK), _LARGE),
    Hostile("sends-100-mb-unannounced", _flood(HEAD + b"\r\n", b" " * 65536), _LARGE),
    Hostile("sends-100-mb-of-headers", _flood(b"HTTP/1.1 200 OK\r\n", b"X: " + b"a" * 65536 + b"\r\n"), _BROKEN),
    Hostile("sends-one-header-of-100-mb", _flood(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65536), _BROKEN),
    Hostile("sends-a-gzip-bomb", _send_bomb, _LARGE),
    Hostile("sends-gzip-that-is-empty-for-ever",
            _flood(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"") * 1000), _LARGE),
    Hostile("sends-gzip-that-ends-early", _send(_packed(_GZIP[:-4])), _BROKEN),
    Hostile("sends-no-gzip", _send(_packed(b'"ok"')), _BROKEN),
    Hostile("sends-a-coding-nobody-asked-for", _send(_packed(b'"ok"', b"br")), _BROKEN),
    Hostile("sends-gzip-twice", _send(_packed(gzip.compress(_GZIP), b"gzip, gzip")), _BROKEN),
    Hostile("promises-more-than-it-sends", _send(HEAD + b'Content-Length: 9\r\n\r\n"ok"'), _BROKEN),
    Hostile("promises-two-lengths", _send(HEAD + b'Content-Length: 4\r\nContent-Length: 9\r\n\r\n"ok"'), _BROKEN),
    Hostile("promises-a-negative-length", _send(HEAD + b'Content-Length: -4\r\n\r\n"ok"'), _BROKEN),
    Hostile("promises-no-number", _send(HEAD + b'Content-Length: 4 4\r\n\r\n"ok"'), _BROKEN),
    Hostile("breaks-off-in-a-chunk", _send(HEAD + b'Transfer-Encoding: chunked\r\n\r\n9\r\n"ok"'), _BROKEN),
    Hostile("sends-no-chunks", _send(HEAD + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n"ok"\r\n'), _BROKEN),
    Hostile("says-nothing", _send(), _BROKEN),
    Hostile("resets", _reset, _BROKEN),
    Hostile("does-not-speak-http", _send(b"SSH-2.0-OpenSSH_9.9\r\n"), _BROKEN),
    Hostile("speaks-http-2", _send(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03"), _BROKEN),
    Hostile("speaks-tls", _send(b"\x15\x03\x01\x00\x02\x02\x46"), _BROKEN),
    Hostile("switches-protocols", _send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), _BROKEN),
    Hostile("puts-a-line-into-a-header", _send(b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n"), _BROKEN),
    Hostile("sends-deep-json", _send(_packed(b"[" * 200_000, b"identity")), "tool.invalid_answer"),
    # 5 MB are taken; as JSON, in an answer of ours, they are more than a function may return.
    Hostile("sends-what-grows", _send(HEAD + b"Content-Length: 5242780\r\n\r\n" + b'"' + b"\\n" * 2_621_389 + b'"'),
            "tool.answer_too_large"),
)  # fmt: skip
