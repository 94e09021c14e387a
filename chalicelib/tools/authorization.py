"""Which credentials a call carries, and where: an operation's `security` against what its caller stored.

RFC 6749 for client credentials, RFC 7617 and RFC 6750 for the headers, OpenAPI 3.1, 4.8.30 for the alternatives.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import quote_plus, urlencode

from chalicelib.core.errors import Conflict, UpstreamFailed, UpstreamTimeout
from chalicelib.core.http_out import OutResponse
from chalicelib.tools.credentials import (
    API_KEY,
    BASIC,
    BEARER,
    OAUTH2,
    SERVER_API_KEY,
    SERVER_OAUTH2,
)
from chalicelib.tools.openapi.operation import Requirement, SecurityScheme

MAX_TOKENS = 1_000
MAX_TOKEN_LENGTH = 16_384
# RFC 6749, 5.1: without expires_in a token's life is unknown; a short one costs one more request in a while.
DEFAULT_LIFE_S = 300
MAX_LIFE_S = 86_400
# The token must still be good when it arrives.
EARLY_S = 30
TOKEN_TIMEOUT_S = 10.0

# (scheme, the URL that its credential is sent to) → what was stored for it, in the clear; None where nothing was.
Reveal = Callable[[str, str], Mapping[str, Any] | None]


class Send(Protocol):
    """Sends one request through the outbound client."""

    def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> OutResponse: ...


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
                _apply(scheme, scopes, value, tokens, owner, send)
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
) -> Authorization:
    if scheme.kind == API_KEY:
        return Authorization((Addition(scheme.location, scheme.parameter, value["value"]),))
    if scheme.kind == BASIC:
        text = _basic(value["username"], value["password"])
        return Authorization((Addition("header", "Authorization", text),))
    if scheme.kind == BEARER:
        return Authorization((Addition("header", "Authorization", f"Bearer {value['token']}"),))
    wanted = tuple(value.get("scopes") or scopes)
    token, key = tokens.get(scheme.token_url, value["clientId"], value["clientSecret"], wanted, owner, send)
    return Authorization((Addition("header", "Authorization", f"Bearer {token}"),), (key,) if key else ())


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class Tokens:
    """Access tokens of this process, until they expire. A token is found only with the very credential that it was
    asked for with, so a rotated secret never meets the token of the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        scopes: Sequence[str],
        owner: tuple[str, ...],
        send: Send,
    ) -> tuple[str, str | None]:
        """Return (token, its key); the key is None for one that was asked for just now."""
        parts = [*owner, token_url, client_id, client_secret, *scopes]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        with self._lock:
            until, token = self._kept.get(key, (0.0, ""))
            if until > self._clock():
                self._kept.move_to_end(key)
                return token, key
        token, life_s = _ask(token_url, client_id, client_secret, scopes, send)
        with self._lock:
            self._kept[key] = (self._clock() + life_s - EARLY_S, token)
            while len(self._kept) > MAX_TOKENS:
                self._kept.popitem(last=False)
        return token, None

    def forget(self, keys: Sequence[str]) -> None:
        """Drop tokens that a server no longer takes."""
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)


def _ask(
    token_url: str, client_id: str, client_secret: str, scopes: Sequence[str], send: Send
) -> tuple[str, float]:
    """Ask for a token (RFC 6749, 4.4.2); return it and its life in seconds."""
    form = {"grant_type": "client_credentials"}
    if scopes:
        form["scope"] = " ".join(scopes)
    headers = {
        # RFC 6749, 2.3.1: both are form-encoded before they are joined.
        "Authorization": _basic(quote_plus(client_id), quote_plus(client_secret)),
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    answer = send(
        "POST", token_url, headers=headers, body=urlencode(form).encode(), timeout_s=TOKEN_TIMEOUT_S
    )
    if not 200 <= answer.status < 300:
        # The answer may repeat the credential: only its status leaves the service.
        raise UpstreamFailed(
            f"The token endpoint answered with status {answer.status}.",
            code="tool.token_refused",
            extensions={"upstreamStatus": answer.status},
        )
    try:
        found = json.loads(answer.body)
        token, kind = found["access_token"], found.get("token_type", "bearer")
        life_s = float(found.get("expires_in", DEFAULT_LIFE_S))
        good = isinstance(token, str) and 0 < len(token) <= MAX_TOKEN_LENGTH and token.isascii()
        if not good or not token.isprintable() or " " in token or str(kind).lower() != "bearer":
            raise ValueError("no bearer token")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UpstreamFailed(
            "The token endpoint did not answer with a bearer token.", code="tool.token_invalid"
        ) from error
    # A NaN fails both comparisons.
    return token, min(life_s, MAX_LIFE_S) if life_s > 0 else 0.0
