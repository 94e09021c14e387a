"""What an outbound call sends: checked before anything is resolved, and cut down across origins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from chalicelib.core.errors import Forbidden, Invalid, UpstreamFailed, Violation
from chalicelib.core.outbound.addresses import Endpoint, Target, parse_endpoint, parse_url
from chalicelib.core.settings import ONE_MIB, VERSION

MAX_REQUEST_BYTES = 10 * ONE_MIB
MAX_REQUEST_HEADER_BYTES = 64 * 1024
# RFC 9110, 9.2.2, of those below.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
# They frame the message or steer the connection: a caller who sets one smuggles a second request, or
# reaches a virtual host that was never checked.
_OURS = frozenset({"accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "te"})
_OURS |= {"http2-settings", "trailer", "transfer-encoding", "upgrade"}
# All that another origin may see of the caller's headers; any other may carry a credential (`X-Api-Key`).
_SAFE_ACROSS_ORIGINS = frozenset({"accept", "accept-language", "user-agent"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Call:
    """A checked request."""

    method: str
    target: Target
    headers: Headers
    body: bytes | None

    def redirected(self, target: Target) -> Call:
        """Return the same call to another place.

        What another origin must not see is lost for the rest of the chain: a way back to the first origin
        does not bring it back.

        Raises
        ------
        errors.UpstreamFailed
            `http.redirect_refused`, from https to http.
        """
        if self.target.scheme == "https" and target.scheme == "http":
            raise UpstreamFailed("The server redirects from https to http.", code="http.redirect_refused")
        if target.origin == self.target.origin:
            return replace(self, target=target)
        safe = tuple((name, value) for name, value in self.headers if name.lower() in _SAFE_ACROSS_ORIGINS)
        return replace(self, target=target, headers=safe, body=None)


def check(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Call:
    """Return the call that may be made.

    Raises
    ------
    errors.Invalid
        `http.invalid_url` or `http.invalid_request`, with every violation.
    """
    violations = list(_violations(method, headers, body))
    try:
        target = parse_url(url)
    except Invalid as error:
        raise Invalid(error.detail, code=error.code, errors=[*error.errors, *violations]) from error
    if violations:
        raise Invalid("The request is refused.", code="http.invalid_request", errors=violations)
    return Call(method.upper(), target, tuple(headers.items()), body)


def parse_allowed(hosts: Iterable[str]) -> frozenset[Endpoint]:
    """Return the granted hosts.

    Raises
    ------
    errors.Invalid
        `http.invalid_allowed_host`, naming every malformed one.
    """
    allowed, violations = set(), []
    for index, entry in enumerate(hosts):
        try:
            allowed.add(parse_endpoint(entry))
        except ValueError as error:
            violations.append(Violation(f"/allowedHosts/{index}", "http.invalid_allowed_host", str(error)))
    if violations:
        raise Invalid("A granted host is malformed.", code="http.invalid_allowed_host", errors=violations)
    return frozenset(allowed)


def forbid_unless_granted(target: Target, allowed: frozenset[Endpoint] | None) -> None:
    """Refuse a place outside the grant.

    Raises
    ------
    errors.Forbidden
        `http.host_not_granted`.
    """
    if allowed is not None and not any(entry.matches(target.host, target.port) for entry in allowed):
        raise Forbidden("The URL leads to a host that was not granted.", code="http.host_not_granted")


def wire_headers(call: Call) -> list[tuple[bytes, bytes]]:
    """Return the call's headers and those of the connection, encoded."""
    headers = [("Host", call.target.authority), ("Accept-Encoding", "gzip"), ("Connection", "close")]
    if first(call.headers, "user-agent") is None:
        headers.append(("User-Agent", f"hotplug/{VERSION}"))
    if call.body is not None or call.method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", str(len(call.body or b""))))
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in (*headers, *call.headers)]


def first(headers: Headers, lower_name: str) -> str | None:
    """Return the first header of that name, in any case."""
    return next((value for name, value in headers if name.lower() == lower_name), None)


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
