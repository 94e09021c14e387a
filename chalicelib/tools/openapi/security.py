"""How an operation wants its caller to authenticate."""

from __future__ import annotations

import re
from typing import Any

from chalicelib.core.strict_json import escape
from chalicelib.tools.openapi.operation import Requirement, SecurityScheme
from chalicelib.tools.openapi.references import resolve
from chalicelib.tools.openapi.servers import absolute_url
from chalicelib.tools.openapi.structure import entries, members

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def compile_security(
    document: dict[str, Any], operation: dict[str, Any], server: str
) -> tuple[Requirement, ...]:
    """Return the alternatives of an operation: its own `security`, also where that is empty, else the document's.

    Parameters
    ----------
    server
        The operation's server; a token URL may be relative to it (OpenAPI 3.1, 4.6).
    """
    described = members(members(document.get("components")).get("securitySchemes"))
    alternatives = operation.get("security", document.get("security"))
    compiled: dict[str, SecurityScheme] = {}
    requirements = []
    for alternative in entries(alternatives):
        schemes = []
        for name, scopes in members(alternative).items():
            if name not in compiled:
                compiled[name] = _scheme(document, name, described.get(name), server)
            schemes.append((compiled[name], tuple(str(scope) for scope in entries(scopes))))
        requirements.append(Requirement(tuple(schemes)))
    return tuple(requirements)


def _scheme(document: dict[str, Any], name: str, value: Any, server: str) -> SecurityScheme:
    try:
        value = members(resolve(document, f"/components/securitySchemes/{escape(name)}", value)[1])
    except LookupError:
        value = {}
    if value.get("type") == "apiKey":
        return _api_key(name, value)
    if value.get("type") == "http":
        scheme = str(value.get("scheme")).lower()  # RFC 9110, 11.1
        if scheme == "basic":
            return SecurityScheme(name, "http_basic")
        if scheme == "bearer":
            return SecurityScheme(name, "http_bearer")
    if value.get("type") == "oauth2":
        # The other flows need a person at a browser; they do not keep this one from being used.
        flow = members(members(value.get("flows")).get("clientCredentials"))
        token_url = absolute_url(str(flow.get("tokenUrl")), server) if "tokenUrl" in flow else None
        if token_url is not None:
            scopes = tuple(members(flow.get("scopes")))
            return SecurityScheme(name, "oauth2_client_credentials", token_url=token_url, scopes=scopes)
    return SecurityScheme(name, "unsupported")


def _api_key(name: str, value: dict[str, Any]) -> SecurityScheme:
    location, parameter = value.get("in"), value.get("name")
    if isinstance(parameter, str) and parameter:
        if location == "query":
            return SecurityScheme(name, "apiKey", "query", parameter)
        # A line feed in a header's name would be the next header.
        if location in ("header", "cookie") and _TOKEN.fullmatch(parameter):
            return SecurityScheme(name, "apiKey", "header" if location == "header" else "cookie", parameter)
    return SecurityScheme(name, "unsupported")
