"""Access tokens by client credentials (RFC 6749, 4.4), asked for once and kept until they expire."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import quote_plus, urlencode
from weakref import WeakValueDictionary

from chalicelib.core.errors import UpstreamFailed
from chalicelib.core.outbound.client import OutResponse

MAX_TOKENS = 1_000
MAX_TOKEN_LENGTH = 16_384
# RFC 6749, 5.1: without expires_in a token's life is unknown; a short one costs one more request in a while.
DEFAULT_LIFE_S = 300
MAX_LIFE_S = 86_400
# The token must still be good when it arrives.
EARLY_S = 30
TOKEN_TIMEOUT_S = 10.0


class Send(Protocol):
    """Sends one request through the outbound client."""

    def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> OutResponse: ...


class _Asking:
    """Whoever is first asks; the others wait for it, but not for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def first(self, patience_s: float) -> Iterator[None]:
        is_mine = self._lock.acquire(timeout=max(0.0, patience_s))
        try:
            yield
        finally:
            if is_mine:
                self._lock.release()


class Tokens:
    """Access tokens of this process, until they expire. A token is found only with the very credential that it was
    asked for with, so a rotated secret never meets the token of the one before.

    Threads may share it: of several that want the same token, one asks. There are servers for which a new token ends
    the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()
        # By token; each lives as long as a thread has it in its hands.
        self._asking: WeakValueDictionary[str, _Asking] = WeakValueDictionary()

    def get(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        scopes: Sequence[str],
        owner: tuple[str, ...],
        send: Send,
        patience_s: float = TOKEN_TIMEOUT_S,
    ) -> tuple[str, str | None]:
        """Return (token, its key); the key is None for one that was asked for just now.

        Parameters
        ----------
        patience_s
            Seconds to wait for another thread that is asking for it; then this one asks too.
        """
        parts = [*owner, token_url, client_id, client_secret, *scopes]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        kept = self._find(key)
        if kept is not None:
            return kept, key
        with self._lock:
            asking = self._asking.setdefault(key, _Asking())
        with asking.first(min(patience_s, TOKEN_TIMEOUT_S)):
            kept = self._find(key)
            if kept is not None:
                return kept, key
            token, life_s = _ask(token_url, client_id, client_secret, scopes, send)
            with self._lock:
                self._kept[key] = (self._clock() + life_s - EARLY_S, token)
                while len(self._kept) > MAX_TOKENS:
                    self._kept.popitem(last=False)
            return token, None

    def _find(self, key: str) -> str | None:
        with self._lock:
            until, token = self._kept.get(key, (0.0, ""))
            if until <= self._clock():
                return None
            self._kept.move_to_end(key)
            return token

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
        "Authorization": basic(quote_plus(client_id), quote_plus(client_secret)),
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


def basic(username: str, password: str) -> str:
    """Return the header of HTTP Basic (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
