from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chalicelib.core import guards, http_out
from chalicelib.core.errors import Forbidden, HotplugError, Invalid, UpstreamFailed, UpstreamTimeout
from chalicelib.core.http_out import HttpOut
from tests.unit.core.ssrf_vectors import FORBIDDEN, NAMES, VECTORS, VPC_RANGES


def zipped(content: bytes) -> bytes:
    """Gzip with a fixed date: parameter ids made of bytes must be the same in every test process."""
    return gzip.compress(content, mtime=0)


A, B = "93.184.215.14", "93.184.215.15"  # public; the fake internet below leads to servers of this machine
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = bytes | Callable[[socket.socket, bytes], None]


class Server:
    """Answers each connection with its next answer (the last one for ever) and keeps what was asked."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, whole: bool = True) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = list(answers)
        self._tls = tls
        self._whole = whole
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:  # closed: the test is over
                return
            self.connections += 1
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            thread = threading.Thread(target=self._serve, args=(conn, answer))
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket, answer: Answer) -> None:
        conn.settimeout(10)
        try:
            if self._tls:
                conn = self._tls.wrap_socket(conn, server_side=True)
            with conn:
                request = read_request(conn, self._whole)
                self.requests.append(request)
                if isinstance(answer, bytes):
                    conn.sendall(answer)
                else:
                    answer(conn, request)
        except OSError:  # the client has gone, as several of the tests want
            conn.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def read_request(conn: socket.socket, whole: bool) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = conn.recv(65536)
        data += piece
        if not piece or data.startswith(b"\x16"):  # the client has gone, or expects TLS where there is none
            return data
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while whole and len(body) < length:
        body += conn.recv(65536)
    return head + b"\r\n\r\n" + body


def header_of(request: bytes, name: str) -> str | None:
    head = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    pairs = [line.split(": ", 1) for line in head]
    return next((value for key, value in pairs if key.lower() == name.lower()), None)


@dataclass
class Internet:
    """Names, addresses and servers, all of them on this machine."""

    names: dict[str, list[tuple[str, ...]]] = field(
        default_factory=dict
    )  # successive answers, the last for ever
    servers: dict[tuple[str, int], int] = field(default_factory=dict)
    resolved: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    running: list[Server] = field(default_factory=list)

    def serve(
        self, host: str, port: int, *answers: Answer, at: str = A, tls: ssl.SSLContext | None = None
    ) -> Server:
        server = Server(*answers, tls=tls)
        self.running.append(server)
        self.names.setdefault(host, [(at,)])
        self.servers[at, port] = server.port
        return server

    def resolve(self, host: str, port: int) -> tuple[str, ...]:
        self.resolved.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def dial(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.dialled.append((address, port))
        if (address, port) not in self.servers:
            raise ConnectionRefusedError(f"nothing listens at {address}")
        return http_out.dial("127.0.0.1", self.servers[address, port], timeout_s)


@pytest.fixture
def internet() -> Iterator[Internet]:
    fake = Internet()
    yield fake
    for server in fake.running:
        server.close()


def client(internet: Internet, **options: object) -> HttpOut:
    return HttpOut(resolver=internet.resolve, dial=internet.dial, **options)  # type: ignore[arg-type]


def redirect(status: int, location: str) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


# -- what is never connected to ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        listening.setblocking(False)
        yield listening


def to_listener(listener: socket.socket) -> HttpOut:
    """A client whose every connection, wherever it means to go, ends at the listener."""

    def resolve(host: str, port: int) -> tuple[str, ...]:
        return NAMES.get(host, (A,))

    def dial(address: str, port: int, timeout_s: float) -> socket.socket:
        return http_out.dial("127.0.0.1", listener.getsockname()[1], timeout_s)

    return HttpOut(resolver=resolve, dial=dial, vpc_ranges=VPC_RANGES, read_timeout_s=0.2)


def test_the_table_is_long() -> None:
    assert len(VECTORS) == len(set(VECTORS)) >= 80


@pytest.mark.parametrize(
    ("url", "code"), VECTORS, ids=[f"{i}-{url[:40]!a}" for i, (url, _) in enumerate(VECTORS)]
)
def test_no_connection_arrives(url: str, code: str, listener: socket.socket) -> None:
    with pytest.raises(Forbidden if code == FORBIDDEN else Invalid) as caught:
        to_listener(listener).request("GET", url, headers={})
    assert caught.value.code == code
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_listener_would_have_seen_one(listener: socket.socket) -> None:
    with pytest.raises(UpstreamTimeout):
        to_listener(listener).request("GET", "http://public.example/", headers={})
    conn, _ = listener.accept()
    conn.close()


@pytest.mark.parametrize("addresses", [answer for answer in NAMES.values() if len(answer) > 1])
def test_a_name_with_one_bad_address_is_refused_without_saying_which(
    addresses: tuple[str, ...], internet: Internet
) -> None:
    internet.serve("mixed.example", 80, OK)
    internet.names["mixed.example"] = [addresses]
    with pytest.raises(Forbidden) as caught:
        client(internet).request("GET", "http://mixed.example/", headers={})
    assert internet.dialled == []
    assert not any(address in str(vars(caught.value)) for address in addresses)


def test_a_rebinding_name_is_connected_at_the_address_that_was_checked(internet: Internet) -> None:
    good = internet.serve("rebind.example", 80, OK)
    bad = internet.serve("inside.example", 80, OK, at="127.0.0.1")
    internet.names["rebind.example"] = [(A,), ("127.0.0.1",)]
    out = client(internet)
    assert out.request("GET", "http://rebind.example/", headers={}).body == b"ok"
    assert internet.resolved == ["rebind.example"]
    assert internet.dialled == [(A, 80)]
    with pytest.raises(Forbidden):
        out.request("GET", "http://rebind.example/", headers={})
    assert (good.connections, bad.connections) == (1, 0)


def test_a_name_that_rebinds_between_redirects_is_checked_again(internet: Internet) -> None:
    internet.serve("rebind.example", 80, redirect(302, "/next"))
    internet.names["rebind.example"] = [(A,), ("169.254.169.254",)]
    with pytest.raises(Forbidden):
        client(internet).request("GET", "http://rebind.example/", headers={})
    assert internet.dialled == [(A, 80)]


def test_the_proxy_of_the_environment_is_not_asked(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = internet.serve("proxy.example", 3128, OK)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    internet.serve("api.example", 80, OK, at=B)
    client(internet).request("GET", "http://api.example/", headers={})
    assert proxy.connections == 0


# -- private endpoints and grants ----------------------------------------------------------------------------


def test_a_private_endpoint_is_reached_with_the_real_resolver_and_no_other_port() -> None:
    server, other = Server(OK), Server(OK)
    try:
        out = HttpOut.from_environment(
            {"HOTPLUG_PRIVATE_ENDPOINTS": f" 127.0.0.1:{server.port} , localhost:1 "}
        )
        assert out.request("GET", f"http://127.0.0.1:{server.port}/x", headers={}).body == b"ok"
        for url in (
            f"http://127.0.0.1:{other.port}/",
            f"http://localhost:{server.port}/",
            "http://127.0.0.1/",
        ):
            with pytest.raises(Forbidden):
                out.request("GET", url, headers={})
        assert (server.connections, other.connections) == (1, 0)
    finally:
        server.close()
        other.close()


def test_a_private_name_may_not_lead_to_the_metadata(internet: Internet) -> None:
    internet.names["demo.internal"] = [("10.0.0.7", "169.254.169.254")]
    with pytest.raises(Forbidden):
        client(internet, private_endpoints=["demo.internal:80"]).request(
            "GET", "http://demo.internal/", headers={}
        )
    assert internet.dialled == []


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:80,", ",", "127.1:80", "*:80", "169.254.169.254:80"]
)
def test_a_bad_list_of_private_endpoints_fails_closed(text: str) -> None:
    with pytest.raises(ValueError, match="private endpoints"):
        HttpOut.from_environment({"HOTPLUG_PRIVATE_ENDPOINTS": text})


def test_the_ranges_of_the_vpc_come_from_the_environment() -> None:
    out = HttpOut.from_environment({"HOTPLUG_VPC_RANGES": "52.94.0.0/16"})
    with pytest.raises(Forbidden):
        out.request("GET", "http://52.94.1.1/", headers={})
    with pytest.raises(ValueError, match="VPC ranges"):
        HttpOut.from_environment({"HOTPLUG_VPC_RANGES": "52.94.0.1/16"})


@pytest.mark.parametrize("granted", [["API.example"], ["api.example:80"], ["x.example", "api.example"], None])
def test_a_granted_host_is_reached(granted: list[str] | None, internet: Internet) -> None:
    internet.serve("api.example", 80, OK)
    assert (
        client(internet).request("GET", "http://api.EXAMPLE/", headers={}, allowed_hosts=granted).status
        == 200
    )


@pytest.mark.parametrize(
    "granted", [[], ["example"], ["sub.api.example"], ["api.example:443"], ["api.example:8080"]]
)
def test_a_host_that_was_not_granted_is_not_even_resolved(granted: list[str], internet: Internet) -> None:
    internet.serve("api.example", 80, OK)
    with pytest.raises(Forbidden) as caught:
        client(internet).request("GET", "http://api.example/", headers={}, allowed_hosts=granted)
    assert caught.value.code == "http.host_not_granted"
    assert internet.resolved == []


def test_a_grant_without_a_port_does_not_open_other_ports(internet: Internet) -> None:
    internet.serve("api.example", 8080, OK)
    with pytest.raises(Forbidden):
        client(internet).request("GET", "http://api.example:8080/", headers={}, allowed_hosts=["api.example"])


def test_a_grant_opens_no_private_address(internet: Internet) -> None:
    internet.serve("inside.example", 80, OK, at="10.0.0.1")
    with pytest.raises(Forbidden) as caught:
        client(internet).request(
            "GET", "http://inside.example/", headers={}, allowed_hosts=["inside.example"]
        )
    assert caught.value.code == "http.forbidden_address"


def test_every_malformed_grant_is_reported(internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request(
            "GET", "http://a.example/", headers={}, allowed_hosts=["*.a", "a.example", "127.1"]
        )
    assert [violation.pointer for violation in caught.value.errors] == ["/allowedHosts/0", "/allowedHosts/2"]


# -- the request ---------------------------------------------------------------------------------------------


def test_what_is_sent(internet: Internet) -> None:
    server = internet.serve("api.example", 8080, OK)
    client(internet).request(
        "post",
        "http://api.example:8080/a?b=c",
        headers={"X-Key": "grüße", "Content-Type": "text/plain"},
        body=b"hi",
    )
    (request,) = server.requests
    assert request.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nhi")
    expected = {
        "Host": "api.example:8080",
        "Content-Length": "2",
        "X-Key": "grüße",
        "Content-Type": "text/plain",
    }
    assert {name: header_of(request, name) for name in expected} == expected
    assert (header_of(request, "user-agent") or "").startswith("hotplug/")


def test_a_post_without_a_body_says_so_and_a_get_does_not(internet: Internet) -> None:
    server = internet.serve("api.example", 80, OK)
    client(internet).request("POST", "http://api.example/", headers={})
    client(internet).request("GET", "http://api.example/", headers={"user-agent": "mine"})
    assert [header_of(request, "content-length") for request in server.requests] == ["0", None]
    assert header_of(server.requests[1], "user-agent") == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Proxy-Authorization",
        "proxy-connection",
        "Accept-Encoding",
        "HTTP2-Settings",
    ],
)
def test_headers_of_the_connection_are_not_the_callers(name: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request("GET", "http://api.example/", headers={name: "1"})
    (violation,) = caught.value.errors
    assert (caught.value.code, violation.rule) == ("http.invalid_request", "http.header_reserved")
    assert violation.pointer == f"/headers/{name}"
    assert internet.resolved == []


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nX-Injected: 1",
        "a\nb",
        "a\rb",
        "\r\n",
        "a\x00b",
        "a\x7fb",
        " a",
        "a ",
        "\ta",
        "a\x0bb",
        "\u2028",
        "a\u010ab",
    ],
)
def test_a_header_value_cannot_begin_another_header(value: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request("GET", "http://api.example/", headers={"X-A": value})
    assert [violation.rule for violation in caught.value.errors] == ["http.header_value"]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ä", "a\x00", "(a)", "a\n", "Host "])
def test_a_header_name_is_a_token(name: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request("GET", "http://api.example/", headers={name: "1"})
    assert [violation.rule for violation in caught.value.errors] == ["http.header_name"]


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "", "GET / HTTP/1.1\r\nX: y", "PROPFIND"])
def test_other_methods_are_refused(method: str, internet: Internet) -> None:
    with pytest.raises(Invalid) as caught:
        client(internet).request(method, "http://api.example/", headers={})
    assert [violation.rule for violation in caught.value.errors] == ["http.method"]


def test_every_violation_is_reported_at_once(internet: Internet) -> None:
    headers = {"Host": "x", "X-A": "a\nb", "b c": "1", "x-a": "2", "T~": "\n", "Big": "a" * 70_000}
    with pytest.raises(Invalid) as caught:
        client(internet).request("BREW", "http://127.1/", headers=headers, body=b"a" * (10 * 1024 * 1024 + 1))
    assert [(violation.pointer, violation.rule) for violation in caught.value.errors] == [
        ("/url", "http.invalid_url"),
        ("/method", "http.method"),
        ("/body", "http.request_too_large"),
        ("/headers", "http.headers_too_large"),
        ("/headers/Host", "http.header_reserved"),
        ("/headers/X-A", "http.header_value"),
        ("/headers", "http.header_name"),
        ("/headers/x-a", "http.header_twice"),
        ("/headers/T~0", "http.header_value"),
    ]


def test_a_call_inside_a_unit_of_work_raises(internet: Internet) -> None:
    with guards.unit(), pytest.raises(guards.NetworkInsideUnit):
        client(internet).request("GET", "http://api.example/", headers={})


@pytest.mark.parametrize(
    "arguments", [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"retries": 6}, {"retries": -1}]
)
def test_bounds_of_the_arguments(arguments: dict[str, float], internet: Internet) -> None:
    with pytest.raises(ValueError, match="must"):
        client(internet).request("GET", "http://api.example/", headers={}, **arguments)  # type: ignore[arg-type]


def test_no_header_reaches_the_log(internet: Internet, caplog: pytest.LogCaptureFixture) -> None:
    internet.serve("api.example", 80, b"HTTP/1.1 200 OK\r\nSet-Cookie: s3cret-2\r\nContent-Length: 0\r\n\r\n")
    with caplog.at_level(logging.DEBUG):
        client(internet).request("GET", "http://api.example/", headers={"Authorization": "s3cret-1"})
    assert "s3cret" not in caplog.text


# -- the answer ----------------------------------------------------------------------------------------------


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


# -- redirects -----------------------------------------------------------------------------------------------

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


# -- time ----------------------------------------------------------------------------------------------------


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


# -- connections ---------------------------------------------------------------------------------------------


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
        assert "127.0.0.1" in http_out.system("localhost", port)
        http_out.dial("127.0.0.1", port, 1).close()
    with pytest.raises(ConnectionRefusedError):
        http_out.dial("127.0.0.1", port, 1)


# -- retries -------------------------------------------------------------------------------------------------

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


# -- TLS -----------------------------------------------------------------------------------------------------


class Authority:
    """A throwaway certificate authority."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("Throwaway CA", self._key, [], ends=timedelta(days=1))

    def trusted(self) -> ssl.SSLContext:
        from cryptography.hazmat.primitives.serialization import Encoding

        return ssl.create_default_context(cadata=self.certificate.public_bytes(Encoding.PEM).decode())

    def server(
        self, names: list[str], seen: list[str | None], ends: timedelta = timedelta(days=1)
    ) -> ssl.SSLContext:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        pem = self._folder / f"{len(list(self._folder.iterdir()))}.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + self._sign("server", key, names, ends).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        context.sni_callback = lambda _socket, name, _context: seen.append(name)
        return context

    def _sign(self, subject: str, key, names: list[str], ends: timedelta):  # type: ignore[no-untyped-def]
        import ipaddress

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Throwaway CA")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        )
        if names:
            entries = [
                x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


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
