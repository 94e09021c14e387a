"""Which URL names which server, and which IP address is public. Pure: no name is resolved here.

A URL is refused wherever two parsers could read it differently (a backslash, user information, `0x7f.1`, an
escaped host): the attack on a checked fetch is a spelling that the check and the connection understand
differently. So there is one reading, `Target`, and the connection is made from it, never from the text again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urldefrag, urljoin

from chalicelib.core.errors import Invalid, Violation

Network = IPv4Network | IPv6Network
MAX_URL_LENGTH = 8192
MAX_HOST_LENGTH = 253
DEFAULT_PORTS = {"http": 80, "https": 443}

# https://www.iana.org/assignments/iana-ipv4-special-registry, every block whether "globally reachable" or not
# (an anycast or translation service is nobody's API), and Azure's wire server, which stands in public space.
_CLOSED_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # "this host": Linux connects 0.0.0.0 to itself
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier NAT; Alibaba's metadata 100.100.100.200; EKS pods
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's wire server
            "169.254.0.0/16",  # clouds' metadata; ECS 169.254.170.2; the Lambda runtime 169.254.100.1
            "172.16.0.0/12",
            "192.0.0.0/24",  # Oracle's metadata 192.0.0.192
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
# Only 2000::/3 is given out as global unicast: ::1, IPv4-mapped and -compatible, NAT64 (64:ff9b::/96 and
# 64:ff9b:1::/48), unique local, link-local, site-local and multicast all lie outside it.
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_CLOSED_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocols: Teredo carries an IPv4 address, benchmarking, ORCHID, AMT
            "2001:db8::/32",
            "2002::/16",  # 6to4 carries an IPv4 address
            "2620:4f:8000::/48",
            "3ffe::/16",
            "3fff::/20",
        ),
    )
)
# Reached by no private endpoint either: what answers there hands out credentials or is no single server, and
# an internal name of a deployment that someone else can point elsewhere must not lead to it.
_NEVER: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("100.100.100.200/32"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("192.0.0.192/32"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
    IPv6Network("::/128"),
    IPv6Network("fd00:ec2::/32"),
    IPv6Network("fd20:ce::/32"),
    IPv6Network("fd00:c1::/32"),
    IPv6Network("fd00:42::42/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
)
# ISATAP (RFC 5214) hides an IPv4 address behind this interface identifier in any prefix.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})

# No user information, no backslash, no space, no control character, no fragment (it never leaves the client),
# nothing outside ASCII (`ⓛocalhost`, `１２７.0.0.1` and `。` fold into other hosts in some parsers).
_URL = re.compile(
    r"(?P<scheme>[A-Za-z]+)://"
    r"(?P<authority>[A-Za-z0-9._\-:\[\]]+)"
    r"(?P<path>[/?][A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]*)?"
)
# What urljoin reads as everyone does: it drops tabs, line ends and leading spaces, and takes
# `https:evil.example` and `https:///evil.example` for paths where a browser sees a host.
_LOCATION = re.compile(
    r"(?:(?:https?:)?//(?=[^/?#])|(?![a-z][a-z0-9+.\-]*:|//))"
    r"[a-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*",
    re.IGNORECASE | re.ASCII,
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::(?P<port>[1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_\-]{0,61}[a-z0-9_])?")
# Where the last label is a number, parsers since inet_aton read the whole host as an IPv4 address: 0x7f.1.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Endpoint:
    """A server: its normalised host (lower case; an IPv6 address compressed, without brackets) and its port;
    None where a rule names the default ports of both schemes."""

    host: str
    port: int | None

    def matches(self, host: str, port: int) -> bool:
        return self.host == host and (port == self.port if self.port else port in DEFAULT_PORTS.values())


@dataclass(frozen=True)
class Target:
    """One URL in its only reading."""

    scheme: str
    host: str
    port: int
    path: str  # with its query, as sent in the request line

    @property
    def origin(self) -> tuple[str, str, int]:
        return (self.scheme, self.host, self.port)

    @property
    def authority(self) -> str:
        """The Host header: an IPv6 address in brackets, the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def address(self) -> str | None:
        """The host where it is an IP address already, None where it is a name."""
        return self.host if ":" in self.host or _is_ipv4(self.host) else None


def parse_url(url: str) -> Target:
    """Return the only reading of an http or https URL.

    Raises
    ------
    errors.Invalid
        `http.invalid_url`, when there is more than one reading or none.
    """
    if len(url) > MAX_URL_LENGTH:
        raise _invalid_url(f"longer than {MAX_URL_LENGTH} characters")
    match = _URL.fullmatch(url)
    if match is None:
        raise _invalid_url("not scheme://host[:port]/path?query in ASCII without user name and fragment")
    scheme = match["scheme"].lower()
    if scheme not in DEFAULT_PORTS:
        raise _invalid_url("only http and https are spoken")
    path = match["path"] or "/"
    if _BAD_ESCAPE.search(path):
        raise _invalid_url("a % is not followed by two hexadecimal digits")
    try:
        endpoint = parse_endpoint(match["authority"])
    except ValueError as error:
        raise _invalid_url(str(error)) from error
    return Target(
        scheme, endpoint.host, endpoint.port or DEFAULT_PORTS[scheme], path if path[0] == "/" else f"/{path}"
    )


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL.

    Raises
    ------
    errors.Invalid
        `http.invalid_url`
    """
    return "{}://{}:{}".format(*parse_url(url).origin)


def parse_location(base: Target, location: str) -> Target:
    """Return where a redirect leads: `location` relative to `base`, its fragment dropped.

    Raises
    ------
    errors.Invalid
        `http.invalid_url`, as `parse_url`.
    """
    if not _LOCATION.fullmatch(location):
        raise _invalid_url("the redirect can be read in more than one way")
    try:
        joined = urldefrag(urljoin(base.url, location)).url
    except ValueError as error:
        raise _invalid_url("the redirect is not a URL") from error
    return parse_url(joined)


def parse_endpoint(text: str) -> Endpoint:
    """Return `host` or `host:port` normalised.

    Raises
    ------
    ValueError
        Saying what is wrong, without repeating the text.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise ValueError("not a host and an optional port")
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > 65535:
        raise ValueError("the port is above 65535")
    return Endpoint(_normalise_host(match["host"].lower()), port)


def parse_private_endpoints(entries: Iterable[str]) -> frozenset[Endpoint]:
    """Return the servers that a deployment means to reach although they are not public.

    Raises
    ------
    ValueError
        Naming every entry that is not an exact host:port, or is an address that nothing may reach. A list
        that is partly wrong opens nothing.
    """
    endpoints, problems = set(), []
    for entry in entries:
        try:
            endpoint = parse_endpoint(entry)
        except ValueError as error:
            problems.append(f"{entry!r}: {error}")
            continue
        if endpoint.port is None:
            problems.append(f"{entry!r}: the port is missing")
        elif _is_ip(endpoint.host) and is_never_reachable(endpoint.host):
            problems.append(f"{entry!r}: no list may open this address")
        endpoints.add(endpoint)
    if problems:
        raise ValueError("private endpoints: " + "; ".join(problems))
    return frozenset(endpoints)


def parse_ranges(entries: Iterable[str]) -> tuple[Network, ...]:
    """Return CIDR blocks.

    Raises
    ------
    ValueError
        Naming every entry that is none (host bits included: `10.0.0.1/8` is a slip of the pen).
    """
    ranges, problems = [], []
    for entry in entries:
        try:
            ranges.append(ip_network(entry))
        except ValueError:
            problems.append(repr(entry))
    if problems:
        raise ValueError("VPC ranges: not a CIDR block: " + ", ".join(problems))
    return tuple(ranges)


def is_public(text: str, closed: Collection[Network] = ()) -> bool:
    """Return whether an IP address is one of the public internet, outside every special range and `closed`.

    An address that carries another one (mapped, 6to4, Teredo, NAT64) is not public, whatever it carries: the
    server it stands for has an address of its own. What is no IP address is not public.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if any(address in network for network in closed):
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _CLOSED_IPV4)
    return (
        address.scope_id is None
        and address.is_global
        and address in _GLOBAL_IPV6
        and (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP
        and not any(address in network for network in _CLOSED_IPV6)
    )


def is_never_reachable(text: str) -> bool:
    """Return whether not even a private endpoint may lead to this IP address.

    So it is with metadata services, the Lambda runtime API, link-local, unspecified and multicast addresses,
    and whatever carries another address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return True
    if isinstance(address, IPv6Address):
        carrying = int(address) >> 32 in (0, 0xFFFF, 0xFFFF0000) and int(address) != 1
        translated = address in IPv6Network("64:ff9b::/32") or address in IPv6Network("2002::/16")
        if carrying or translated or address.teredo or address.scope_id is not None:
            return True
    return any(address in network for network in _NEVER)


def _normalise_host(host: str) -> str:
    if host.startswith("["):
        try:
            return IPv6Address(host[1:-1]).compressed
        except AddressValueError:
            raise ValueError("not an IPv6 address") from None
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        if not _is_ipv4(host):
            raise ValueError("an IPv4 address must be written as four decimal numbers")
        return host
    # A trailing dot is refused with the empty labels: `example.com.` is another Host, SNI and list entry.
    if len(host) > MAX_HOST_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name")
    return host


def _is_ipv4(host: str) -> bool:
    try:
        IPv4Address(host)  # refuses leading zeros, which C libraries read as octal
    except AddressValueError:
        return False
    return True


def _is_ip(host: str) -> bool:
    return ":" in host or _is_ipv4(host)


def _invalid_url(reason: str) -> Invalid:
    return Invalid(
        f"The URL is refused: {reason}.",
        code="http.invalid_url",
        errors=[Violation("/url", "http.invalid_url", reason)],
    )
