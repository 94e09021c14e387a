from __future__ import annotations

import asyncio
import json
import logging

import pytest

from infra.local.wire import HttpServer, Request, Response


async def echo(request: Request) -> Response:
    if request.target == "/raise":
        raise RuntimeError("a defect")
    answer = {
        "method": request.method,
        "target": request.target,
        "size": len(request.body),
        "large": request.too_large,
    }
    return Response(204 if request.target == "/empty" else 200, [], json.dumps(answer).encode())


def talk(sent: bytes) -> bytes:
    """Send bytes to a server with a body limit of 10, and return all it answers until it closes."""

    async def run() -> bytes:
        server = HttpServer(echo, max_body=10, log=logging.getLogger("test-wire"), keep_alive_s=0.5)
        reader, writer = await asyncio.open_connection("127.0.0.1", await server.start())
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        await server.close()
        return answer

    return asyncio.run(run())


def test_requests_on_one_connection_are_answered_in_order() -> None:
    answer = talk(
        b"POST /1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nT: v\r\n\r\n"
        b"GET http://host/3?q#f HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert [b'"size": 3' in answer, b'"size": 5' in answer, b'"target": "/3?q"' in answer] == [True] * 3
    assert answer.count(b"Connection: keep-alive") == 2


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 11\r\n\r\n" + b"x" * 11,
        b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n",
        b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_a_body_over_the_limit_reaches_the_handler_as_too_large(body: bytes) -> None:
    answer = talk(b"POST / HTTP/1.1\r\n" + body)
    assert b'"size": 0, "large": true' in answer
    assert b"100 Continue" not in answer
    assert b"Connection: close" in answer


def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    answer = talk(
        b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab"
    )
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET nowhere HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : space\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
    ],
)
def test_malformed_requests_are_refused_and_the_connection_ends(sent: bytes) -> None:
    answer = talk(sent)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_headers_without_end_are_refused() -> None:
    assert talk(b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000).startswith(b"HTTP/1.1 431 ")


def test_head_and_empty_answers_carry_no_body() -> None:
    assert talk(b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n").endswith(b"\r\n\r\n")
    empty = talk(b"GET /empty HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert empty.endswith(b"\r\n\r\n")
    assert b"Content-Length" not in empty


def test_a_defect_in_a_handler_is_a_500_and_the_server_lives() -> None:
    answer = talk(b"GET /raise HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"HTTP/1.1 200 OK" in answer
