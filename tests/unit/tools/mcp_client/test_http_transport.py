from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import httpx2
import pytest

from chalicelib.core.errors import HotplugError, UpstreamFailed, UpstreamTimeout
from chalicelib.tools.mcp_client import http_transport
from chalicelib.tools.mcp_client.dialect import Transport
from chalicelib.tools.mcp_client.http_transport import MAX_BYTES, MAX_EXCHANGES, Endpoint, HttpTransport
from tests.fakes.streaming_http import EVENTS, JSON, URL, FakeAnswer, FakeHttp


def transport(
    http: FakeHttp,
    kind: Transport = "streamable_http",
    left_s: float = 100.0,
    headers: Mapping[str, str] | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> HttpTransport:
    endpoint = Endpoint(http, URL, headers or {}, time.monotonic() + left_s, ["mcp.example.org"])
    return HttpTransport(endpoint, kind, on_failure)


def send(out: HttpTransport, method: str = "POST", url: str = URL, **options: Any) -> httpx2.Response:
    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=out, trust_env=False) as client:
            return await client.request(method, url, **options)

    return anyio.run(ask)


def test_a_request_goes_out_with_the_credentials_and_without_what_is_not_ours_to_set() -> None:
    http = FakeHttp(FakeAnswer(headers=(*JSON, ("x-cafe", "é"), ("set-cookie", "a=b"))))
    answer = send(
        transport(http, headers={"Authorization": "Bearer t"}),
        json={"a": 1},
        headers={"mcp-protocol-version": "2026-07-28", "accept": "application/json"},
    )
    assert (answer.status_code, answer.content) == (200, b"{}")
    assert answer.headers["x-cafe"] == "é"
    assert "set-cookie" not in answer.headers
    [asked] = http.asked
    assert 99 < asked.pop("timeout_s") <= 100
    assert asked == {
        "method": "POST",
        "url": URL,
        "headers": {
            "Authorization": "Bearer t",
            "accept": "application/json",
            "content-type": "application/json",
            "mcp-protocol-version": "2026-07-28",
        },
        "body": b'{"a":1}',
        "allowed_hosts": ["mcp.example.org"],
        "max_bytes": MAX_BYTES,
    }
    assert http.calls[0].left.is_set()


@pytest.mark.parametrize(
    "url",
    [
        "http://mcp.example.org/mcp",
        "https://mcp.example.org:8443/mcp",
        "https://mcp.example.org.attacker.example/mcp",
        "https://attacker.example/mcp",
    ],
)
def test_credentials_go_to_no_other_origin(url: str) -> None:
    http = FakeHttp(FakeAnswer())
    with pytest.raises(UpstreamFailed) as caught:
        send(transport(http, headers={"Authorization": "Bearer t"}), url=url)
    assert caught.value.code == "http.redirect_refused"
    assert http.asked == []


def test_an_answer_from_another_origin_is_refused() -> None:
    http = FakeHttp(FakeAnswer(headers=EVENTS, url="https://attacker.example/"))
    with pytest.raises(UpstreamFailed) as caught:
        send(transport(http, "sse"), "GET")
    assert caught.value.code == "http.redirect_refused"
    assert http.calls[0].left.is_set()


def test_the_stream_of_what_a_server_says_unasked_is_not_opened() -> None:
    http = FakeHttp(FakeAnswer(headers=EVENTS))
    assert send(transport(http), "GET").status_code == 405
    assert http.asked == []
    assert send(transport(http), "GET", headers={"Last-Event-Id": "7"}).status_code == 200
    assert http.asked[0]["headers"]["last-event-id"] == "7"


def test_a_failure_is_kept_and_told() -> None:
    told: list[str] = []
    refused = UpstreamFailed(code="http.connect_failed")
    out = transport(FakeHttp(refused, UpstreamTimeout()), on_failure=lambda: told.append("now"))
    for _ in range(2):
        with pytest.raises(HotplugError):
            send(out)
    assert out.failure is refused
    assert told == ["now", "now"]


def test_the_end_of_a_session_may_fail_and_is_not_waited_for_long() -> None:
    http = FakeHttp(UpstreamTimeout())
    out = transport(http)
    with pytest.raises(UpstreamTimeout):
        send(out, "DELETE")
    assert out.failure is None
    assert http.asked[0]["timeout_s"] == http_transport.FAREWELL_S


@pytest.mark.parametrize(("left_s", "timeout_s"), [(100.0, 5.0), (4.0, 2.0)])
def test_a_server_that_hangs_on_discovery_counts_as_one_that_does_not_know_it(
    left_s: float, timeout_s: float
) -> None:
    http = FakeHttp(UpstreamTimeout())
    out = transport(http, left_s=left_s)
    assert send(out, headers={"mcp-method": "server/discover"}).status_code == 504
    assert out.failure is None
    assert http.asked[0]["timeout_s"] == pytest.approx(timeout_s, abs=0.5)


def test_nothing_is_sent_when_the_time_is_over() -> None:
    http = FakeHttp(FakeAnswer())
    with pytest.raises(UpstreamTimeout):
        send(transport(http, left_s=0))
    assert http.asked == []


def test_a_conversation_has_a_number_of_requests() -> None:
    http = FakeHttp(FakeAnswer())
    out = transport(http)
    http.answers = [FakeAnswer() for _ in range(MAX_EXCHANGES + 1)]
    for _ in range(MAX_EXCHANGES):
        send(out)
    with pytest.raises(UpstreamFailed) as caught:
        send(out)
    assert caught.value.code == "mcp.protocol_error"
    assert len(http.asked) == MAX_EXCHANGES


@pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["json", "events"])
def test_all_answers_together_have_a_size(headers: tuple[tuple[str, str], ...]) -> None:
    half = MAX_BYTES // 2 + 1
    http = FakeHttp(*(FakeAnswer(headers=headers, chunks=iter([b"x" * half])) for _ in range(2)))
    out = transport(http)
    assert len(send(out).content) == half
    with pytest.raises(UpstreamFailed) as caught:
        send(out)
    assert caught.value.code == "http.response_too_large"
    assert out.failure is caught.value
    assert http.asked[1]["max_bytes"] == MAX_BYTES - half


@pytest.mark.parametrize(
    ("kind", "method", "answer", "code"),
    [
        ("streamable_http", "POST", FakeAnswer(401), "mcp.unauthorized"),
        ("streamable_http", "POST", FakeAnswer(403), "mcp.forbidden"),
        ("sse", "POST", FakeAnswer(500), "mcp.http_error"),
        ("sse", "GET", FakeAnswer(404), "mcp.http_error"),
        ("sse", "GET", FakeAnswer(200), "mcp.protocol_error"),
    ],
)
def test_an_answer_that_ends_the_conversation(
    kind: Transport, method: str, answer: FakeAnswer, code: str
) -> None:
    out = transport(FakeHttp(answer), kind)
    with pytest.raises(UpstreamFailed) as caught:
        send(out, method)
    assert caught.value.code == code
    assert out.failure is caught.value


@pytest.mark.parametrize(
    ("status", "body", "explained"),
    [
        (404, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}}, True),
        (400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no"}}, True),
        (404, {"detail": "Not Found"}, False),
        (200, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}}, False),
    ],
)
def test_a_refusal_may_be_explained(status: int, body: Any, explained: bool) -> None:
    out = transport(FakeHttp(FakeAnswer(status, chunks=iter([json.dumps(body).encode()]))))
    assert send(out).status_code == status
    assert (out.status, out.explained, out.answered) == (status, explained, status == 200)


@pytest.mark.parametrize(
    "blocked", [None, FakeAnswer(headers=EVENTS)], ids=["before the answer", "in the body"]
)
def test_a_cancellation_ends_the_call_and_its_thread(blocked: FakeAnswer | None) -> None:
    http = FakeHttp(blocked)
    if blocked is not None:

        def wait() -> Iterator[bytes]:
            assert http.calls[0].closed.wait(10), "nobody ended the call"
            yield b"late"

        blocked.chunks = wait()
    out = transport(http)

    async def give_up() -> bool:
        with anyio.move_on_after(0.05) as scope:
            async with httpx2.AsyncClient(transport=out, trust_env=False) as client:
                await client.request("POST", URL)
        return scope.cancelled_caught

    assert anyio.run(give_up)
    assert http.calls[0].closed.is_set()
    assert http.calls[0].left.is_set() == (blocked is not None)
    assert out.failure is None


def test_what_a_reader_leaves_open_is_closed_with_the_client() -> None:
    http = FakeHttp(FakeAnswer(headers=EVENTS, chunks=iter([b"a", b"b"])))
    out = transport(http)

    async def forget() -> None:
        async with httpx2.AsyncClient(transport=out, trust_env=False) as client:
            await client.send(client.build_request("POST", URL), stream=True)
            assert not http.calls[0].left.is_set()

    anyio.run(forget)
    assert http.calls[0].left.is_set()
