"""The one client for URLs that a caller chose.

Such a URL may ask for what only the service can reach (CWE-918): the metadata of its cloud, its VPC, the
Lambda runtime API. So a host is resolved once, all its addresses must be public, and the socket is connected
to one of exactly those, with the name kept for Host, SNI and the certificate; a name that changes its answer
in between gains nothing. Each redirect is a new request with every check.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from types import TracebackType

from chalicelib.core import guards
from chalicelib.core.errors import UpstreamFailed
from chalicelib.core.outbound.addresses import Endpoint, parse_location, parse_private_endpoints, parse_ranges
from chalicelib.core.outbound.connection import Dial, Exchange, Line, PinnedBackend, Timeouts, dial, exchange
from chalicelib.core.outbound.content import content
from chalicelib.core.outbound.deadline import Deadline
from chalicelib.core.outbound.lookup import Lookup, Resolver, system
from chalicelib.core.outbound.request import (
    IDEMPOTENT,
    Call,
    Headers,
    check,
    first,
    forbid_unless_granted,
    parse_allowed,
)
from chalicelib.core.outbound.retry import MAX_RETRIES, Repeat, retry
from chalicelib.core.settings import ONE_MIB

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True)
class OutResponse:
    """An answer of any status.

    `headers` have lower-case names and lack the hop-by-hop ones; of a body that came compressed, which `body`
    no longer is, also Content-Encoding and Content-Length. `url` is the last one after redirects.
    """

    status: int
    headers: Headers
    body: bytes
    url: str
    duration_ms: int

    def header(self, name: str) -> str | None:
        """Return the first header of that name, in any case."""
        return first(self.headers, name.lower())


@dataclass(frozen=True)
class StreamingResponse:
    """An answer of any status whose body is still to be read; `status`, `headers` and `url` as OutResponse.

    `chunks` yields the decompressed body as it arrives, in pieces that are not empty. It raises what `request`
    raises for a body, and `http_connection.StreamClosed` once `close` was called. One thread at a time may
    read it, not always the same.
    """

    status: int
    headers: Headers
    url: str
    chunks: Iterator[bytes]
    close: Callable[[], None]

    def header(self, name: str) -> str | None:
        """Return the first header of that name, in any case."""
        return first(self.headers, name.lower())


class Streaming:
    """A call that begins where its `with` block does and is over where that ends.

    `close()` may be called by any thread, before, while and after the answer is waited for or read: what waits
    on the connection ends at once, with StreamClosed. A look-up and a TCP connection that are being made are
    not waited for longer than `connect_timeout_s`.
    """

    def __init__(self, start: Callable[[Line], tuple[Call, Exchange]], max_bytes: int) -> None:
        self._start = start
        self._max_bytes = max_bytes
        self._line = Line()
        self._exchange: Exchange | None = None

    def __enter__(self) -> StreamingResponse:
        call, self._exchange = self._start(self._line)
        chunks = _body(self._exchange, self._max_bytes)
        headers = _kept(call, self._exchange)
        return StreamingResponse(self._exchange.status, headers, call.target.url, chunks, self.close)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever still reads in another thread must stop before the socket is closed.
        self._line.cut()
        if self._exchange is not None:
            self._exchange.close()

    def close(self) -> None:
        """End the call."""
        self._line.cut()


class _Trust:
    """Whom a client trusts, and those that were made of it: to read the system's authorities takes 40 ms."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """Return the context; the default one is made on first use."""
        with self._lock:
            if self._context is None:
                import httpcore

                self._context = httpcore.default_ssl_context()
            return self._context


class HttpOut:
    """The client.

    It keeps no connection and no cookie, reads no proxy from the environment, and threads may share it.

    Parameters
    ----------
    private_endpoints
        `host:port` pairs that may be reached although they are not public.
    resolver, dial
        Seams: how names become addresses, and addresses sockets.
    max_response_bytes
        Of the body, as sent and as decompressed.
    connect_timeout_s, read_timeout_s, total_timeout_s
        For the look-up, the connection and the TLS handshake each; for each wait for bytes; for everything
        together, redirects and retries included.
    vpc_ranges
        CIDR blocks that are ours although their addresses look public.
    tls_context
        Whom to trust; the system's and certifi's authorities by default.
    sleep
        How to wait between retries.

    Raises
    ------
    ValueError
        A private endpoint or a range is malformed: nothing is allowed by guessing what it meant.
    """

    def __init__(
        self,
        private_endpoints: Collection[str] = (),
        resolver: Resolver = system,
        max_response_bytes: int = 5 * ONE_MIB,
        connect_timeout_s: float = 3,
        read_timeout_s: float = 30,
        total_timeout_s: float = 60,
        *,
        vpc_ranges: Collection[str] = (),
        dial: Dial = dial,
        tls_context: ssl.SSLContext | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        private = parse_private_endpoints(private_endpoints)
        self._lookup = Lookup(resolver, private, parse_ranges(vpc_ranges), connect_timeout_s)
        self._max_response_bytes = max_response_bytes
        self._timeouts = Timeouts(connect_timeout_s, read_timeout_s)
        self._total_timeout_s = total_timeout_s
        self._dial = dial
        self._trust = _Trust(tls_context)
        self._sleep = sleep

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> HttpOut:
        """Return a client with HOTPLUG_PRIVATE_ENDPOINTS and HOTPLUG_VPC_RANGES, both separated by commas."""
        return cls(
            private_endpoints=_listed(env.get("HOTPLUG_PRIVATE_ENDPOINTS", "")),
            vpc_ranges=_listed(env.get("HOTPLUG_VPC_RANGES", "")),
        )

    def patient(self, seconds: float) -> HttpOut:
        """Return this client for servers that think for long before they say anything: it waits so long for bytes,
        and for everything together, unless a call's own `timeout_s` is shorter."""
        other = copy(self)
        other._timeouts = replace(self._timeouts, read=seconds)
        other._total_timeout_s = seconds
        return other

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        allowed_hosts: Collection[str] | None = None,
        retries: int = 0,
        repeat: Repeat | None = None,
    ) -> OutResponse:
        """Send one request and return the answer, whatever its status.

        Parameters
        ----------
        timeout_s
            For everything together, where it is shorter than the client's.
        allowed_hosts
            `host` (ports 80 and 443) or `host:port`; None for any public host. Each redirect is held to it.
        retries
            How often to try again, 0 to 5, after a failed connection, a broken or late answer, or a 502, 503
            or 504 without Retry-After. Only for idempotent methods; others are sent once.
        repeat
            Given, any method is tried again, and after these answers.

        Raises
        ------
        errors.Invalid
            `http.invalid_url`, `http.invalid_request`, `http.invalid_allowed_host`.
        errors.Forbidden
            `http.forbidden_address`, `http.host_not_granted`.
        errors.UpstreamFailed
            `http.connect_failed`, `http.tls_failed`, `http.protocol_error`, `http.response_too_large`,
            `http.redirect_refused`.
        errors.UpstreamTimeout
            One of the timeouts passed.
        guards.NetworkInsideUnit
            A unit of work is open.
        """
        if not 0 <= retries <= MAX_RETRIES:
            raise ValueError(f"retries must lie between 0 and {MAX_RETRIES}")
        started = time.monotonic()
        call, allowed, deadline = self._prepare(method, url, headers, body, timeout_s, allowed_hosts)

        def attempt() -> OutResponse:
            return self._whole(call, allowed, deadline)

        again = retries if repeat or call.method in IDEMPOTENT else 0
        answer = retry(attempt, again, deadline, self._sleep, repeat) if again else attempt()
        return replace(answer, duration_ms=round((time.monotonic() - started) * 1000))

    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float | None = None,
        allowed_hosts: Collection[str] | None = None,
        max_bytes: int | None = None,
    ) -> Streaming:
        """Return a call whose answer is read while it arrives, to be used in a `with` block. It is sent once.

        The arguments are checked here; the block's start resolves, connects and waits for the headers. The
        time counts from here to the end of the body.

        Parameters
        ----------
        timeout_s, allowed_hosts
            As `request`.
        max_bytes
            Of the body, as sent and as decompressed; the client's limit by default.

        Raises
        ------
        errors.Invalid, guards.NetworkInsideUnit
            As `request`. All else that `request` raises comes from the block's start or from `chunks`.
        """
        call, allowed, deadline = self._prepare(method, url, headers, body, timeout_s, allowed_hosts)

        def start(line: Line) -> tuple[Call, Exchange]:
            guards.forbid_in_unit("http")
            return self._follow(call, allowed, deadline, line)

        return Streaming(start, self._max_response_bytes if max_bytes is None else max_bytes)

    def _prepare(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float | None,
        allowed_hosts: Collection[str] | None,
    ) -> tuple[Call, frozenset[Endpoint] | None, Deadline]:
        guards.forbid_in_unit("http")
        if timeout_s is not None and not timeout_s > 0:
            raise ValueError("timeout_s must be positive")
        call = check(method, url, headers, body)
        allowed = None if allowed_hosts is None else parse_allowed(allowed_hosts)
        return call, allowed, Deadline.after(min(self._total_timeout_s, timeout_s or self._total_timeout_s))

    def _whole(self, call: Call, allowed: frozenset[Endpoint] | None, deadline: Deadline) -> OutResponse:
        last, answer = self._follow(call, allowed, deadline, Line())
        try:
            # A bytearray, because 5 MB in chunks of one byte each are 200 MB as objects.
            body = bytearray()
            for piece in _body(answer, self._max_response_bytes):
                body += piece
        finally:
            answer.close()
        return OutResponse(answer.status, _kept(last, answer), bytes(body), last.target.url, 0)

    def _follow(
        self, call: Call, allowed: frozenset[Endpoint] | None, deadline: Deadline, line: Line
    ) -> tuple[Call, Exchange]:
        for _ in range(MAX_REDIRECTS + 1):
            line.check()
            forbid_unless_granted(call.target, allowed)
            backend = PinnedBackend(self._lookup.pin(call.target, deadline), self._dial, deadline, line)
            tls = self._trust.context() if call.target.scheme == "https" else None
            answer = exchange(call, backend, self._timeouts, tls)
            location = first(answer.headers, "location")
            if call.method not in ("GET", "HEAD") or answer.status not in _REDIRECTS or location is None:
                return call, answer
            answer.close()
            call = call.redirected(parse_location(call.target, location))
        raise UpstreamFailed(f"More than {MAX_REDIRECTS} redirects.", code="http.redirect_refused")


def _body(answer: Exchange, limit: int) -> Iterator[bytes]:
    return content(answer.chunks, _encoding(answer), limit)


def _kept(call: Call, answer: Exchange) -> Headers:
    bodiless = call.method == "HEAD" or answer.status in (204, 304)
    decoded = {"content-encoding", "content-length"} if _encoding(answer) and not bodiless else set()
    return tuple((name, value) for name, value in answer.headers if name not in _HOP_BY_HOP | decoded)


def _encoding(answer: Exchange) -> str:
    return ", ".join(value for name, value in answer.headers if name == "content-encoding").lower()


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",")] if text.strip() else []
