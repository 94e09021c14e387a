"""The servers of an OpenAPI document: where its operations are called, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from chalicelib.core.errors import Invalid, Violation
from chalicelib.core.outbound.addresses import parse_url
from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.structure import entries, members

MAX_URL = 2_048
"""Characters of a server's URL with its variables replaced."""

_VARIABLE = re.compile(r"\{([^{}]*)\}")
# A backslash is a slash to some readers of URLs and not to others; the rest ends a line of the request.
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
# `https:http://a.example/`, `https:///a.example/`, `///a.example/`: to some readers these name a host, to others a
# path at the base's host (RFC 3986, 5.2.2).
_WITHOUT_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?!//[^/?#])|//(?![^/?#])")


def check_servers(pointer: str, servers: Any) -> Iterator[Violation]:
    """Yield what is wrong with a `servers` list at `pointer`: all in it are checked, though the first one is used."""
    for index, server in enumerate(entries(servers)):
        if isinstance(server, dict) and isinstance(server.get("url"), str):
            yield from _check_server(f"{pointer}/{index}", server)


def server_url(server: dict[str, Any]) -> str:
    """Return the URL of a server, variables replaced by their defaults, without a final slash."""
    variables = members(server.get("variables"))
    return _VARIABLE.sub(lambda match: str(variables[match[1]]["default"]), server["url"]).rstrip("/")


def absolute_url(url: str, base: str) -> str | None:
    """Return `url` taken relative to the server `base` (OpenAPI 3.1, 4.6), None unless that is http or https."""
    # Before they are joined, which drops tabs, line ends and outer blanks.
    if _UNSAFE.search(url) or _WITHOUT_HOST.match(url):
        return None
    try:
        # The base is a folder: "oauth/token" stands in it, "/oauth/token" at its host.
        joined = urljoin(base + "/", url)
    except ValueError:
        return None
    return joined if _fault(joined, allows_query=True) is None else None


def _check_server(pointer: str, server: dict[str, Any]) -> Iterator[Violation]:
    variables = members(server.get("variables"))
    found = [
        *_check_variables(pointer, variables),
        *_check_template(pointer, server["url"], variables),
    ]
    yield from found
    if not found:
        fault = _fault(server_url(server), allows_query=False)
        if fault is not None:
            yield Violation(f"{pointer}/url", "openapi.server_url", fault)


def _check_variables(pointer: str, variables: dict[str, Any]) -> Iterator[Violation]:
    for name, variable in variables.items():
        place = f"{pointer}/variables/{escape(name)}"
        default = members(variable).get("default")
        if not isinstance(default, str):
            yield Violation(place, "openapi.server_variable", "has no default")
        elif isinstance(variable.get("enum"), list) and default not in variable["enum"]:
            yield Violation(f"{place}/default", "openapi.server_variable", "is none of the variable's values")


def _check_template(pointer: str, url: str, variables: dict[str, Any]) -> Iterator[Violation]:
    for name in dict.fromkeys(_VARIABLE.findall(url)):
        if name not in variables:
            message = f"has a variable {name[:100]!r} that is not described"
            yield Violation(f"{pointer}/url", "openapi.server_variable", message)
    if re.search(r"[{}]", _VARIABLE.sub("", url)):
        yield Violation(f"{pointer}/url", "openapi.server_url", "has a brace without its pair")


def _fault(url: str, *, allows_query: bool) -> str | None:
    """What keeps a URL from being called."""
    if len(url) > MAX_URL:
        return f"is longer than {MAX_URL} characters"
    if _UNSAFE.search(url):
        return "has a blank, a control character or a backslash"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "is not an absolute http or https URL"
    if "@" in parts.netloc:
        return "holds credentials, which belong in a security scheme"
    if parts.fragment or "#" in url or ("?" in url and not allows_query):
        return "has a query or a fragment"
    try:
        # The reading that the call will be made from.
        parse_url(url)
    except Invalid as error:
        return error.errors[0].message
    return None
