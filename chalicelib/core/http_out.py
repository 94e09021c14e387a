"""The one client for URLs that a caller chose.

Such a URL may ask for what only the service can reach (CWE-918): the metadata of its cloud, its VPC, the
Lambda runtime API. So a host is resolved once, all its addresses must be public, and the socket is connected
to one of exactly those, with the name kept for Host, SNI and the certificate; a name that changes its answer
in between gains nothing. Each redirect is a new request with every check.

httpcore speaks the protocol over a stream of ours, whose every read and write ends at the call's deadline.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from chalicelib.core import guards
from chalicelib.core.addresses import (
    Endpoint,
    Target,
    is_never_reachable,
    is_public,
    parse_endpoint,
    parse_location,
    parse_private_endpoints,
    parse_ranges,
    parse_url,
)
from chalicelib.core.errors import Forbidden, Invalid, UpstreamFailed, UpstreamTimeout, Violation
from chalicelib.core.settings import ONE_MIB, VERSION

if TYPE_CHECKING:
    import httpcore

MAX_REQUEST_BYTES = 10 * ONE_MIB
MAX_REQUEST_HEADER_BYTES = 64 * 1024
MAX_REDIRECTS = 5
MAX_RETRIES = 5
# A name may have hundreds of addresses; all are checked, a few are tried.
MAX_ADDRESSES_TRIED = 4
# A resolver that hangs holds a thread until its own timeout; further look-ups time out in the queue.
CONCURRENT_LOOKUPS = 16
RETRY_BASE_S = 0.2
RETRY_CEILING_S = 5.0

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110, 9.2.2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUS = frozenset({502, 503, 504})
_TRANSIENT_CODES = frozenset({"http.connect_failed", "http.protocol_error"})
# They frame the message or steer the connection: a caller who sets one smuggles a second request, or
# reaches a virtual host that was never checked.
_OURS = frozenset({"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "te"})
_OURS |= {"http2-settings", "trailer", "transfer-encoding", "upgrade"}
# All that another origin may see of the caller's headers; any other may carry a credential (`X-Api-Key`).
_SAFE_ACROSS_ORIGINS = frozenset({"accept", "accept-language", "user-agent"})
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_GUNZIP_PIECE = 64 * 1024

Headers = tuple[tuple[str, str], ...]
Resolver = Callable[[str, int], Sequence[str]]  # host, port → IP addresses; OSError where there are none
Dial = Callable[[str, int, float], socket.socket]  # IP address, port, seconds → connected socket; OSError


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
        return _first(self.headers, name.lower())


@dataclass(frozen=True)
class _Call:
    method: str
    target: Target
    headers: Headers
    body: bytes | None

    def redirected(self, target: Target) -> _Call:
        """Return the same call to another place.

        What another origin must not see is lost for the rest of the chain: a way back to the first origin
        does not bring it back.
        """
        if self.target.scheme == "https" and target.scheme == "http":
            raise UpstreamFailed("The server redirects from https to http.", code="http.redirect_refused")
        if target.origin == self.target.origin:
            return replace(self, target=target)
        safe = tuple((name, value) for name, value in self.headers if name.lower() in _SAFE_ACROSS_ORIGINS)
        return replace(self, target=target, headers=safe, body=None)


@dataclass(frozen=True)
class _Deadline:
    ends: float  # time.monotonic()

    def bound(self, limit_s: float | None) -> float:
        """Return how long one step may wait: `limit_s`, or what is left of the whole."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise UpstreamTimeout("The server did not answer in time.")
        return left if limit_s is None else min(left, limit_s)


def system(host: str, port: int) -> tuple[str, ...]:
    """Resolve with the operating system."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial(address: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to an IP address; no name is looked up on the way."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


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
        self._private = parse_private_endpoints(private_endpoints)
        self._vpc_ranges = parse_ranges(vpc_ranges)
        self._resolver = resolver
        self._max_response_bytes = max_response_bytes
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._total_timeout_s = total_timeout_s
        self._dial = dial
        self._tls_context = tls_context
        self._sleep = sleep
        self._lookups = ThreadPoolExecutor(CONCURRENT_LOOKUPS, thread_name_prefix="hotplug-dns")

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> HttpOut:
        """Return a client with HOTPLUG_PRIVATE_ENDPOINTS and HOTPLUG_VPC_RANGES, both separated by commas."""
        return cls(
            private_endpoints=_listed(env.get("HOTPLUG_PRIVATE_ENDPOINTS", "")),
            vpc_ranges=_listed(env.get("HOTPLUG_VPC_RANGES", "")),
        )

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
        guards.forbid_in_unit("http")
        if timeout_s is not None and not timeout_s > 0:
            raise ValueError("timeout_s must be positive")
        if not 0 <= retries <= MAX_RETRIES:
            raise ValueError(f"retries must lie between 0 and {MAX_RETRIES}")
        call = _checked(method, url, headers, body)
        allowed = None if allowed_hosts is None else _parse_allowed(allowed_hosts)
        started = time.monotonic()
        deadline = _Deadline(started + min(self._total_timeout_s, timeout_s or self._total_timeout_s))
        if retries and call.method in _IDEMPOTENT:
            answer = self._retrying(lambda: self._follow(call, allowed, deadline), retries, deadline)
        else:
            answer = self._follow(call, allowed, deadline)
        return replace(answer, duration_ms=round((time.monotonic() - started) * 1000))

    def _retrying(self, attempt: Callable[[], OutResponse], retries: int, deadline: _Deadline) -> OutResponse:
        import tenacity

        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1) | tenacity.stop_before_delay(deadline.bound(None)),
            # Full jitter: clients that failed together do not come back together.
            wait=tenacity.wait_random_exponential(multiplier=RETRY_BASE_S, max=RETRY_CEILING_S),
            retry=tenacity.retry_if_exception(_is_transient) | tenacity.retry_if_result(_asks_again),
            sleep=self._sleep,
            retry_error_callback=lambda state: cast("Any", state.outcome).result(),
        )
        return again(attempt)

    def _follow(self, call: _Call, allowed: frozenset[Endpoint] | None, deadline: _Deadline) -> OutResponse:
        for _ in range(MAX_REDIRECTS + 1):
            _forbid_unless_granted(call.target, allowed)
            answer = self._exchange(call, self._pin(call.target, deadline), deadline)
            location = _first(answer.headers, "location")
            if call.method not in ("GET", "HEAD") or answer.status not in _REDIRECTS or location is None:
                return answer
            call = call.redirected(parse_location(call.target, location))
        raise UpstreamFailed(f"More than {MAX_REDIRECTS} redirects.", code="http.redirect_refused")

    def _pin(self, target: Target, deadline: _Deadline) -> Sequence[str]:
        """Return the addresses that the connection may use, all of them checked."""
        found = (target.address,) if target.address else self._look_up(target, deadline)
        if not found:
            raise UpstreamFailed("The host name does not resolve.", code="http.connect_failed")
        if Endpoint(target.host, target.port) in self._private:
            reachable = not any(map(is_never_reachable, found))
        else:
            # One bad address among good ones refuses the name: which is connected to is the attacker's throw.
            reachable = all(is_public(address, self._vpc_ranges) for address in found)
        if not reachable:
            raise Forbidden("The URL does not lead to a public address.", code="http.forbidden_address")
        return found

    def _look_up(self, target: Target, deadline: _Deadline) -> Sequence[str]:
        lookup = self._lookups.submit(self._resolver, target.host, target.port)
        try:
            return lookup.result(deadline.bound(self._connect_timeout_s))
        except TimeoutError as error:
            lookup.cancel()
            raise UpstreamTimeout("The host name was not resolved in time.") from error
        except (OSError, UnicodeError) as error:
            raise UpstreamFailed("The host name does not resolve.", code="http.connect_failed") from error

    def _exchange(self, call: _Call, addresses: Sequence[str], deadline: _Deadline) -> OutResponse:
        import httpcore

        # At DEBUG it writes the headers of requests and answers, credentials among them.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        target, wait = call.target, self._read_timeout_s
        url = httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        )
        request = httpcore.Request(
            call.method,
            url,
            headers=_wire_headers(call),
            content=call.body,
            extensions={"timeout": {"connect": self._connect_timeout_s, "read": wait, "write": wait}},
        )
        backend = _PinnedBackend(addresses, self._dial, deadline)
        connection = httpcore.HTTPConnection(
            url.origin,
            ssl_context=self._tls() if target.scheme == "https" else None,
            network_backend=cast("httpcore.NetworkBackend", backend),
        )
        try:
            return self._read(target, connection.handle_request(request))
        except httpcore.ProtocolError as error:
            raise _broken() from error
        finally:
            connection.close()

    def _read(self, target: Target, response: httpcore.Response) -> OutResponse:
        headers = tuple((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers)
        encoding = ", ".join(value for name, value in headers if name == "content-encoding").lower()
        chunks = _bounded(response.iter_stream(), self._max_response_bytes)
        # Bounded once more behind the decompression: 5 MB of gzip become 5 GB.
        # A bytearray, because 5 MB in chunks of one byte each are 200 MB as objects.
        body = bytearray()
        for piece in _bounded(_decoded(chunks, encoding), self._max_response_bytes):
            body += piece
        hidden = _HOP_BY_HOP | ({"content-encoding", "content-length"} if body and encoding else set())
        kept = tuple((name, value) for name, value in headers if name not in hidden)
        return OutResponse(response.status, kept, bytes(body), target.url, 0)

    def _tls(self) -> ssl.SSLContext:
        if self._tls_context is None:
            import httpcore

            self._tls_context = httpcore.default_ssl_context()
        return self._tls_context


class _PinnedBackend:
    """Stands for httpcore.NetworkBackend; it connects to checked addresses whatever host it is told."""

    def __init__(self, addresses: Sequence[str], dial: Dial, deadline: _Deadline) -> None:
        self._addresses = addresses[:MAX_ADDRESSES_TRIED]
        self._dial = dial
        self._deadline = deadline

    def connect_tcp(
        self, host: str, port: int, timeout: float, local_address: None, socket_options: None
    ) -> _Stream:
        ends = _Deadline(time.monotonic() + self._deadline.bound(timeout))
        failure: OSError | None = None
        for tried, address in enumerate(self._addresses):
            try:
                # Shared out, so that one address that swallows packets leaves time for the next.
                share = ends.bound(None) / (len(self._addresses) - tried)
                return _Stream(self._dial(address, port, share), self._deadline)
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise UpstreamTimeout("The server did not accept the connection in time.") from failure
        raise UpstreamFailed("The server cannot be connected to.", code="http.connect_failed") from failure


class _Stream:
    """Stands for httpcore.NetworkStream; no operation outlasts the deadline, however slowly bytes drip."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._sock.settimeout(self._deadline.bound(timeout))
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise UpstreamTimeout("The server did not answer in time.") from error
        except OSError as error:
            raise _broken() from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        import httpcore

        rest = memoryview(buffer)
        while rest:
            try:
                self._sock.settimeout(self._deadline.bound(timeout))
                rest = rest[self._sock.send(rest) :]
            except TimeoutError as error:
                raise UpstreamTimeout("The server did not take the request in time.") from error
            except OSError as error:
                # httpcore then reads: a server may answer (413) and close before it has read everything.
                raise httpcore.WriteError() from error

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str, timeout: float) -> _Stream:
        try:
            self._sock.settimeout(self._deadline.bound(timeout))
            wrapped = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except BaseException as error:
            self._sock.close()
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("The TLS handshake did not end in time.") from error
            if isinstance(error, ssl.SSLError):
                raise UpstreamFailed("The server failed TLS verification.", code="http.tls_failed") from error
            if isinstance(error, OSError):
                raise UpstreamFailed("The connection ended early.", code="http.connect_failed") from error
            raise
        return _Stream(wrapped, self._deadline)

    def get_extra_info(self, info: str) -> None:
        """Nothing is known: httpcore asks for `ssl_object` to find HTTP/2, which is not offered."""

    def close(self) -> None:
        self._sock.close()


def _checked(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> _Call:
    violations = list(_violations(method, headers, body))
    try:
        target = parse_url(url)
    except Invalid as error:
        raise Invalid(error.detail, code=error.code, errors=[*error.errors, *violations]) from error
    if violations:
        raise Invalid("The request is refused.", code="http.invalid_request", errors=violations)
    return _Call(method.upper(), target, tuple(headers.items()), body)


def _violations(method: str, headers: Mapping[str, str], body: bytes | None) -> Iterator[Violation]:
    if method.upper() not in _METHODS:
        yield Violation("/method", "http.method", f"not one of {', '.join(sorted(_METHODS))}")
    if body is not None and len(body) > MAX_REQUEST_BYTES:
        yield Violation("/body", "http.request_too_large", f"longer than {MAX_REQUEST_BYTES} bytes")
    if sum(len(name) + len(value) + 4 for name, value in headers.items()) > MAX_REQUEST_HEADER_BYTES:
        yield Violation("/headers", "http.headers_too_large", f"longer than {MAX_REQUEST_HEADER_BYTES} bytes")
    seen: set[str] = set()
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            yield Violation("/headers", "http.header_name", "a header's name is not an HTTP token")
            continue
        pointer, lower = f"/headers/{name.replace('~', '~0')}", name.lower()
        if lower in _OURS or lower.startswith("proxy-"):
            yield Violation(pointer, "http.header_reserved", "this header belongs to the connection")
        if lower in seen:
            yield Violation(pointer, "http.header_twice", "the name is given twice in different cases")
        if not _FIELD_VALUE.fullmatch(value):
            # A line end would begin a header, or a request, of the caller's own making.
            yield Violation(pointer, "http.header_value", "the value has control characters or outer spaces")
        seen.add(lower)


def _parse_allowed(hosts: Iterable[str]) -> frozenset[Endpoint]:
    allowed, violations = set(), []
    for index, entry in enumerate(hosts):
        try:
            allowed.add(parse_endpoint(entry))
        except ValueError as error:
            violations.append(Violation(f"/allowedHosts/{index}", "http.invalid_allowed_host", str(error)))
    if violations:
        raise Invalid("A granted host is malformed.", code="http.invalid_allowed_host", errors=violations)
    return frozenset(allowed)


def _forbid_unless_granted(target: Target, allowed: frozenset[Endpoint] | None) -> None:
    if allowed is not None and not any(entry.matches(target.host, target.port) for entry in allowed):
        raise Forbidden("The URL leads to a host that was not granted.", code="http.host_not_granted")


def _wire_headers(call: _Call) -> list[tuple[bytes, bytes]]:
    headers = [("Host", call.target.authority), ("Accept-Encoding", "gzip"), ("Connection", "close")]
    if _first(call.headers, "user-agent") is None:
        headers.append(("User-Agent", f"hotplug/{VERSION}"))
    if call.body is not None or call.method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(call.body or b""))))
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in (*headers, *call.headers)]


def _bounded(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise UpstreamFailed(f"The answer is longer than {limit} bytes.", code="http.response_too_large")
        yield chunk


def _decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    if encoding in ("", "identity"):
        yield from chunks
        return
    decoder = None
    for chunk in chunks:
        if encoding not in ("gzip", "x-gzip"):  # nothing else was asked for
            raise _broken()
        rest = chunk
        while rest:
            if decoder is None or decoder.eof:  # RFC 1952: members follow one another
                decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            try:
                yield decoder.decompress(rest, _GUNZIP_PIECE)
            except zlib.error as error:
                raise _broken() from error
            rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if decoder is not None and not decoder.eof:
        raise _broken()


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, UpstreamTimeout) or (
        isinstance(error, UpstreamFailed) and error.code in _TRANSIENT_CODES
    )


def _asks_again(answer: OutResponse) -> bool:
    return answer.status in _TRANSIENT_STATUS and answer.header("retry-after") is None


def _first(headers: Headers, lower_name: str) -> str | None:
    return next((value for name, value in headers if name.lower() == lower_name), None)


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",")] if text.strip() else []


def _broken() -> UpstreamFailed:
    return UpstreamFailed("The server did not answer in HTTP.", code="http.protocol_error")
