from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable

import pytest

from chalicelib.core import guards
from chalicelib.core.errors import Forbidden, HotplugError, Invalid, UpstreamFailed, UpstreamTimeout
from chalicelib.core.outbound.client import HttpOut
from chalicelib.core.outbound.connection import StreamClosed
from tests.internet import OK, Authority, B, Internet, client, header_of, redirect

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
URL = "http://a.example/"


class Held:
    """Sends something and then keeps the connection until the client goes."""

    def __init__(self, *sent: bytes) -> None:
        self._sent = sent
        self.client_went = threading.Event()

    def __call__(self, conn: socket.socket, request: bytes) -> None:
        for piece in self._sent:
            conn.sendall(piece)
        conn.settimeout(10)
        try:
            if not conn.recv(1):
                self.client_went.set()
        except ConnectionResetError:
            self.client_went.set()


def test_pieces_come_before_the_answer_has_ended(internet: Internet) -> None:
    held = Held(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"6\r\ndata: \r\n")
    server = internet.serve("a.example", 80, held)
    with client(internet).stream("POST", URL, headers={"Accept": "text/event-stream"}, body=b"{}") as answer:
        assert (answer.status, answer.url) == (200, URL)
        assert answer.headers == (("content-type", "text/event-stream"),)
        assert (answer.header("Content-Type"), answer.header("x")) == ("text/event-stream", None)
        assert next(answer.chunks) == b"data: "
        assert not held.client_went.is_set()
    assert held.client_went.wait(5)
    assert server.requests[0].endswith(b"\r\n\r\n{}")


def test_a_whole_answer_is_read_to_its_end(internet: Internet) -> None:
    internet.serve("a.example", 80, OK)
    with client(internet).stream("GET", URL, headers={}) as answer:
        assert list(answer.chunks) == [b"ok"]


def test_compressed_events_come_one_by_one(internet: Internet) -> None:
    held = Held(
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 999\r\n\r\n", gzip.compress(b"one", mtime=0)
    )
    internet.serve("a.example", 80, held)
    with client(internet).stream("GET", URL, headers={}) as answer:
        assert next(answer.chunks) == b"one"
        assert answer.headers == (("content-type", "text/event-stream"),)


# -- closing -------------------------------------------------------------------------------------------------


def outcome(action: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run `action` in a thread; the list holds what it returned or raised."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(action())
        except HotplugError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("framing", [b"", b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_close_ends_a_read_that_waits_in_another_thread(
    framing: bytes, scheme: str, internet: Internet, authority: Authority
) -> None:
    held = Held(HEAD + framing + b"\r\n")
    tls = authority.server(["a.example"], []) if scheme == "https" else None
    internet.serve("a.example", 443 if tls else 80, held, tls=tls)
    out = client(internet, tls_context=authority.trusted())
    with out.stream("GET", f"{scheme}://a.example/", headers={}) as answer:
        reader, found = outcome(lambda: list(answer.chunks))
        answer.close()
        reader.join(5)
        assert not reader.is_alive()
        assert isinstance(found[0], StreamClosed)
        assert found[0].code == "http.stream_closed"
    assert held.client_went.wait(5)


def test_close_ends_a_wait_for_the_headers(internet: Internet) -> None:
    arrived = threading.Event()
    held = Held()

    def serve(conn: socket.socket, request: bytes) -> None:
        arrived.set()
        held(conn, request)

    internet.serve("a.example", 80, serve)
    call = client(internet).stream("GET", URL, headers={})
    waiter, found = outcome(call.__enter__)
    assert arrived.wait(5)
    call.close()
    waiter.join(5)
    assert isinstance(found[0], StreamClosed)
    assert held.client_went.wait(5)


def test_close_ends_a_handshake(internet: Internet, authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        internet.names["a.example"] = [("93.184.215.14",)]
        internet.servers["93.184.215.14", 443] = mute.getsockname()[1]
        call = client(internet, tls_context=authority.trusted()).stream(
            "GET", "https://a.example/", headers={}
        )
        waiter, found = outcome(call.__enter__)
        conn, _ = mute.accept()
        with conn:
            assert conn.recv(1)  # it has begun
            call.close()
            waiter.join(2)
            assert not waiter.is_alive()
    assert isinstance(found[0], StreamClosed)


def test_a_call_that_was_closed_before_it_began_connects_nowhere(internet: Internet) -> None:
    internet.serve("a.example", 80, OK)
    call = client(internet).stream("GET", URL, headers={})
    call.close()
    with pytest.raises(StreamClosed), call:
        pass
    assert internet.dialled == []


def test_a_call_that_is_closed_while_it_connects_sends_nothing(internet: Internet) -> None:
    server = internet.serve("a.example", 80, OK)

    def dial(address: str, port: int, timeout_s: float) -> socket.socket:
        sock = internet.dial(address, port, timeout_s)
        call.close()
        return sock

    call = HttpOut(resolver=internet.resolve, dial=dial).stream("GET", URL, headers={})
    with pytest.raises(StreamClosed), call:
        pass
    server.close()
    internet.running.clear()
    assert server.requests in ([], [b""])


def test_what_was_read_after_the_end_of_the_block_is_no_answer(internet: Internet) -> None:
    held = Held(HEAD + b"\r\nabc")
    internet.serve("a.example", 80, held)
    with client(internet).stream("GET", URL, headers={}) as answer:
        assert next(answer.chunks) == b"abc"
    with pytest.raises(StreamClosed):
        next(answer.chunks)


def test_the_end_of_the_block_does_not_wait_for_a_reader(internet: Internet) -> None:
    held = Held(HEAD + b"\r\nabc")
    internet.serve("a.example", 80, held)
    with client(internet).stream("GET", URL, headers={}) as answer:
        next(answer.chunks)
        reader, found = outcome(lambda: next(answer.chunks))
    reader.join(5)
    assert isinstance(found[0], StreamClosed)


def test_close_may_be_called_again_and_after_the_end(internet: Internet) -> None:
    internet.serve("a.example", 80, OK)
    with client(internet).stream("GET", URL, headers={}) as answer:
        assert b"".join(answer.chunks) == b"ok"
        answer.close()
        answer.close()
    answer.close()


def test_the_connection_is_closed_when_the_block_raises(internet: Internet) -> None:
    held = Held(HEAD + b"\r\nabc")
    internet.serve("a.example", 80, held)
    with pytest.raises(LookupError), client(internet).stream("GET", URL, headers={}):
        raise LookupError
    assert held.client_went.wait(5)


# -- every check of a request --------------------------------------------------------------------------------


def test_the_arguments_are_checked_before_the_block(internet: Internet) -> None:
    out = client(internet)
    with pytest.raises(Invalid) as caught:
        out.stream("BREW", "http://127.1/", headers={"Host": "x"})
    assert [violation.pointer for violation in caught.value.errors] == ["/url", "/method", "/headers/Host"]
    with pytest.raises(Invalid):
        out.stream("GET", URL, headers={}, allowed_hosts=["*"])
    with pytest.raises(ValueError, match="timeout_s"):
        out.stream("GET", URL, headers={}, timeout_s=0)
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        out.stream("GET", URL, headers={})


def test_a_block_inside_a_unit_of_work_raises(internet: Internet) -> None:
    internet.serve("a.example", 80, OK)
    call = client(internet).stream("GET", URL, headers={})
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit), call:
        pass
    assert internet.dialled == []


def test_a_host_that_was_not_granted_is_not_resolved(internet: Internet) -> None:
    with (
        pytest.raises(Forbidden) as caught,
        client(internet).stream("GET", URL, headers={}, allowed_hosts=[]),
    ):
        pass
    assert caught.value.code == "http.host_not_granted"
    assert internet.resolved == []


def test_redirects_are_followed_for_get_alone_without_the_credentials(internet: Internet) -> None:
    first = internet.serve("a.example", 80, redirect(307, "http://b.example/x"))
    second = internet.serve("b.example", 80, OK, at=B)
    out = client(internet)
    with out.stream("GET", URL, headers={"Authorization": "s3cret"}) as answer:
        assert (list(answer.chunks), answer.url) == ([b"ok"], "http://b.example/x")
    assert header_of(second.requests[0], "authorization") is None
    with out.stream("POST", URL, headers={}, body=b"{}") as answer:
        assert answer.status == 307
    assert (first.connections, second.connections) == (2, 1)


def test_a_redirect_to_a_private_address_is_refused(internet: Internet) -> None:
    internet.serve("a.example", 80, redirect(302, "http://169.254.169.254/"))
    with pytest.raises(Forbidden), client(internet).stream("GET", URL, headers={}):
        pass


def test_the_body_of_a_redirect_is_not_waited_for(internet: Internet) -> None:
    held = Held(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 9\r\n\r\n")
    internet.serve("a.example", 80, held, OK)
    with client(internet).stream("GET", URL, headers={}) as answer:
        assert list(answer.chunks) == [b"ok"]
    assert held.client_went.wait(5)


def test_a_failure_is_sent_once(internet: Internet) -> None:
    server = internet.serve("a.example", 80, b"", OK)
    with pytest.raises(UpstreamFailed) as caught, client(internet).stream("GET", URL, headers={}):
        pass
    assert (caught.value.code, server.connections) == ("http.protocol_error", 1)


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"\r\n" + b"a" * 1001,
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"\0" * 1001, mtime=0),
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"", mtime=0) * 60,
    ],
    ids=["plain", "bomb", "nothing-for-ever"],
)
def test_more_than_the_limit_is_cut_off(sent: bytes, internet: Internet) -> None:
    internet.serve("a.example", 80, sent)
    with client(internet).stream("GET", URL, headers={}, max_bytes=1000) as answer:
        with pytest.raises(UpstreamFailed) as caught:
            list(answer.chunks)
        assert caught.value.code == "http.response_too_large"


def test_the_limit_of_the_client_holds_where_none_is_given_and_can_be_raised(internet: Internet) -> None:
    internet.serve("a.example", 80, HEAD + b"\r\n" + b"a" * 2000)
    out = client(internet, max_response_bytes=1000)
    with out.stream("GET", URL, headers={}) as answer, pytest.raises(UpstreamFailed):
        list(answer.chunks)
    with out.stream("GET", URL, headers={}, max_bytes=2000) as answer:
        assert len(b"".join(answer.chunks)) == 2000


@pytest.mark.parametrize("options", [{"total_timeout_s": 0.3}, {"read_timeout_s": 0.3}])
def test_silence_after_the_headers_ends_with_the_time(options: dict[str, float], internet: Internet) -> None:
    internet.serve("a.example", 80, Held(HEAD + b"\r\nabc"))
    with client(internet, **options).stream("GET", URL, headers={}) as answer:
        assert next(answer.chunks) == b"abc"
        with pytest.raises(UpstreamTimeout):
            next(answer.chunks)


def test_a_body_that_breaks_off_is_a_protocol_error(internet: Internet) -> None:
    internet.serve("a.example", 80, HEAD + b"Content-Length: 10\r\n\r\nshort")
    with client(internet).stream("GET", URL, headers={}) as answer:
        with pytest.raises(UpstreamFailed) as caught:
            list(answer.chunks)
        assert caught.value.code == "http.protocol_error"
