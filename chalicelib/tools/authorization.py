"""Which credentials a call carries, and where: an operation's `security` against what its caller stored.

RFC 6749 for client credentials, RFC 7617 and RFC 6750 for the headers, OpenAPI 3.1, 4.8.30 for the alternatives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from chalicelib.core.errors import Conflict, UpstreamTimeout
from chalicelib.core.outbound.client import OutResponse
from chalicelib.tools.credentials import (
    API_KEY,
    BASIC,
    BEARER,
    OAUTH2,
    SERVER_API_KEY,
    SERVER_OAUTH2,
)
from chalicelib.tools.openapi.operation import Requirement, SecurityScheme
from chalicelib.tools.tokens import TOKEN_TIMEOUT_S, Send, Tokens, basic

# (scheme, the URL that its credential is sent to) → what was stored for it, in the clear; None where nothing was.
Reveal = Callable[[str, str], Mapping[str, Any] | None]


class TimeLeft:
    """What is left of the seconds that a call may take as a whole: the gateway ends a request after 29 s, and a token
    may have to be asked for on the way."""

    def __init__(self, total_s: float) -> None:
        self._ends = time.monotonic() + total_s

    def seconds(self) -> float:
        """Return the seconds that are left.

        Raises
        ------
        errors.UpstreamTimeout
            None are.
        """
        left = self._ends - time.monotonic()
        if left <= 0:
            raise UpstreamTimeout("The call did not end in time.")
        return left

    def bounded(self, send: Send) -> Send:
        """Return what sends within the time that is left by then."""

        def within(
            method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float
        ) -> OutResponse:
            return send(method, url, headers=headers, body=body, timeout_s=min(timeout_s, self.seconds()))

        return within


@dataclass(frozen=True)
class Addition:
    """One thing that authenticates a request: where it goes (`header`, `query`, `cookie`), its name, its value."""

    location: str
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Authorization:
    """What is added to a request.

    Parameters
    ----------
    tokens
        Keys of tokens that came from memory: the server may have withdrawn them since (`Tokens.forget`).
    """

    additions: tuple[Addition, ...] = ()
    tokens: tuple[str, ...] = ()


def authorize(
    security: Sequence[Requirement],
    url: str,
    reveal: Reveal,
    tokens: Tokens,
    owner: tuple[str, ...],
    send: Send,
    patience_s: float = TOKEN_TIMEOUT_S,
) -> Authorization:
    """Return what the first alternative that can be satisfied adds to a request. Not inside a unit of work.

    Parameters
    ----------
    security
        Of the operation; nothing is added where it asks for nothing.
    url
        Where the request goes.
    owner
        Whose tokens they are: (app, tool). No other caller is ever given them.
    send
        For tokens that must be asked for.
    patience_s
        Seconds to wait for a token that another thread is asking for already.

    Raises
    ------
    errors.Conflict
        `tool.credentials_missing`: no alternative has all its credentials; `needs` lists them.
    errors.UpstreamFailed, errors.UpstreamTimeout, errors.Forbidden
        The token cannot be had: `tool.token_refused`, `tool.token_invalid`, or what the outbound client says.
    """
    if not security:
        return Authorization()
    for requirement in security:
        values = [(scheme, scopes, _value(scheme, url, reveal)) for scheme, scopes in requirement.schemes]
        if all(value is not None for _, _, value in values):
            parts = [
                _apply(scheme, scopes, value, tokens, owner, send, patience_s)
                for scheme, scopes, value in values
                if value is not None
            ]
            return Authorization(
                tuple(part.additions[0] for part in parts),
                tuple(key for part in parts for key in part.tokens),
            )
    needs = [[scheme.name for scheme, _ in requirement.schemes] for requirement in security]
    raise Conflict(
        "The operation needs credentials that the app has not stored, or not for where it leads now.",
        code="tool.credentials_missing",
        extensions={"needs": needs},
    )


def _value(scheme: SecurityScheme, url: str, reveal: Reveal) -> Mapping[str, Any] | None:
    value = reveal(scheme.name, url)
    if value is None or scheme.kind != OAUTH2:
        return value
    # The secret goes to one place, the token to another: both must be what it was given for.
    return reveal(scheme.name, scheme.token_url)


def authorize_server(
    credentials: Mapping[str, tuple[str, Mapping[str, Any]]],
    tokens: Tokens,
    owner: tuple[str, ...],
    send: Send,
) -> Authorization:
    """Return what an MCP server's credentials (scheme → kind and value) add to each of its requests."""
    parts = []
    for scheme, (kind, value) in credentials.items():
        if kind == SERVER_API_KEY:
            parts.append(Authorization((Addition("header", value["header"], value["value"]),)))
        elif kind == SERVER_OAUTH2:
            asked = SecurityScheme(scheme, OAUTH2, token_url=value["tokenUrl"])
            parts.append(_apply(asked, (), value, tokens, owner, send))
        else:
            parts.append(_apply(SecurityScheme(scheme, cast(Any, kind)), (), value, tokens, owner, send))
    return Authorization(
        tuple(part.additions[0] for part in parts), tuple(key for part in parts for key in part.tokens)
    )


def _apply(
    scheme: SecurityScheme,
    scopes: Sequence[str],
    value: Mapping[str, Any],
    tokens: Tokens,
    owner: tuple[str, ...],
    send: Send,
    patience_s: float = TOKEN_TIMEOUT_S,
) -> Authorization:
    if scheme.kind == API_KEY:
        return Authorization((Addition(scheme.location, scheme.parameter, value["value"]),))
    if scheme.kind == BASIC:
        text = basic(value["username"], value["password"])
        return Authorization((Addition("header", "Authorization", text),))
    if scheme.kind == BEARER:
        return Authorization((Addition("header", "Authorization", f"Bearer {value['token']}"),))
    wanted = tuple(value.get("scopes") or scopes)
    credential = (scheme.token_url, value["clientId"], value["clientSecret"], wanted, owner)
    token, key = tokens.get(*credential, send, patience_s)
    return Authorization((Addition("header", "Authorization", f"Bearer {token}"),), (key,) if key else ())
