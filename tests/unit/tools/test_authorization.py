"""Which credentials a call carries, and where; whose tokens are kept, and for how long."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest

from chalicelib.core.errors import Conflict, UpstreamFailed
from chalicelib.core.outbound.client import OutResponse
from chalicelib.tools import tokens as kept_tokens
from chalicelib.tools.authorization import Addition, Authorization, authorize, authorize_server
from chalicelib.tools.openapi.operation import Requirement, SecurityScheme
from chalicelib.tools.tokens import Tokens
from tests.fakes.outbound import FakeHttp, answered

URL, TOKEN_URL = "https://api.example/v1", "https://login.example/token"
KEY = SecurityScheme("key", "apiKey", "header", "X-Key")
QUERY = SecurityScheme("query", "apiKey", "query", "key")
COOKIE = SecurityScheme("cookie", "apiKey", "cookie", "session")
BASIC = SecurityScheme("basic", "http_basic")
BEARER = SecurityScheme("bearer", "http_bearer")
LOGIN = SecurityScheme("login", "oauth2_client_credentials", token_url=TOKEN_URL)
OTHER = SecurityScheme("other", "unsupported")
STORED: dict[str, dict[str, Any]] = {
    "key": {"value": "k1"},
    "query": {"value": "q1"},
    "cookie": {"value": "c1"},
    "basic": {"username": "ann", "password": "pä:ss"},
    "bearer": {"token": "t1"},
    "login": {"clientId": "i d", "clientSecret": "s+&"},
}
OWNER = ("11", "tool@1")


def needs(*schemes: SecurityScheme, scopes: tuple[str, ...] = ()) -> Requirement:
    return Requirement(tuple((scheme, scopes) for scheme in schemes))


def apply(
    *security: Requirement,
    stored: Mapping[str, Any] = STORED,
    http: FakeHttp | None = None,
    tokens: Tokens | None = None,
) -> Authorization:
    send = (http or FakeHttp([AssertionError("nothing is to be asked")])).request
    return authorize(security, URL, lambda name, _: stored.get(name), tokens or Tokens(), OWNER, send)


@pytest.mark.parametrize(
    ("scheme", "addition"),
    [
        (KEY, ("header", "X-Key", "k1")),
        (QUERY, ("query", "key", "q1")),
        (COOKIE, ("cookie", "session", "c1")),
        (BASIC, ("header", "Authorization", "Basic " + base64.b64encode("ann:pä:ss".encode()).decode())),
        (BEARER, ("header", "Authorization", "Bearer t1")),
    ],
    ids=lambda value: value.name if isinstance(value, SecurityScheme) else "",
)
def test_where_a_credential_goes(scheme: SecurityScheme, addition: tuple[Any, str, str]) -> None:
    assert apply(needs(scheme)) == Authorization((Addition(*addition),))


@pytest.mark.parametrize(
    ("security", "names"),
    [
        ((), []),
        ((needs(),), []),
        ((needs(KEY), needs(QUERY)), ["X-Key"]),
        ((needs(KEY, QUERY),), ["X-Key", "key"]),
        ((needs(OTHER), needs(QUERY)), ["key"]),
        ((needs(KEY, OTHER), needs(COOKIE)), ["session"]),
        ((needs(OTHER), needs()), []),
        # What is optional is sent where it is stored.
        ((needs(KEY), needs()), ["X-Key"]),
    ],
)
def test_the_first_alternative_that_can_be_satisfied(
    security: tuple[Requirement, ...], names: list[str]
) -> None:
    assert [one.name for one in apply(*security).additions] == names


def test_what_is_missing_is_said_by_name() -> None:
    with pytest.raises(Conflict) as refused:
        apply(needs(KEY, OTHER), needs(LOGIN), stored={"key": {"value": "k1"}})
    assert refused.value.code == "tool.credentials_missing"
    assert refused.value.extensions == {"needs": [["key", "other"], ["login"]]}


def test_a_secret_stays_out_of_what_is_printed() -> None:
    assert "k1" not in repr(apply(needs(KEY)))


# -- tokens --------------------------------------------------------------------------------------------------------


def token(text: Any = "abc", **members: Any) -> OutResponse:
    return answered({"access_token": text, "token_type": "Bearer", **members})


def test_a_token_is_asked_for_as_the_rfc_says() -> None:
    http = FakeHttp([token()])
    found = apply(needs(LOGIN, scopes=("read", "write")), http=http)
    assert found == Authorization((Addition("header", "Authorization", "Bearer abc"),))
    [asked] = http.asked
    assert (asked.method, asked.url) == ("POST", TOKEN_URL)
    # RFC 6749, 2.3.1: both are form-encoded before they are joined.
    assert asked.headers["Authorization"] == "Basic " + base64.b64encode(b"i+d:s%2B%26").decode()
    assert parse_qs((asked.body or b"").decode()) == {
        "grant_type": ["client_credentials"], "scope": ["read write"],
    }  # fmt: skip


def test_stored_scopes_count_before_the_operations() -> None:
    http = FakeHttp([token()])
    stored = {"login": {**STORED["login"], "scopes": ["mine"]}}
    apply(needs(LOGIN, scopes=("read",)), http=http, stored=stored)
    assert b"scope=mine" in (http.asked[0].body or b"")


@pytest.mark.parametrize("denied", [URL, TOKEN_URL])
def test_a_client_secret_needs_both_places_it_leads_to(denied: str) -> None:
    http = FakeHttp([token()])

    def reveal(name: str, url: str) -> Mapping[str, Any] | None:
        return None if url == denied else STORED[name]

    with pytest.raises(Conflict):
        authorize((needs(LOGIN),), URL, reveal, Tokens(), OWNER, http.request)
    assert http.asked == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (answered({"error": "no"}, 401), "tool.token_refused"),
        (answered({}, 302), "tool.token_refused"),
        (answered([]), "tool.token_invalid"),
        (answered(None), "tool.token_invalid"),
        (answered({"token_type": "bearer"}), "tool.token_invalid"),
        (token(""), "tool.token_invalid"),
        (token(1), "tool.token_invalid"),
        (token("a b"), "tool.token_invalid"),
        (token("a\r\nX-Evil: b"), "tool.token_invalid"),
        (token("ä"), "tool.token_invalid"),
        (token("a" * (kept_tokens.MAX_TOKEN_LENGTH + 1)), "tool.token_invalid"),
        (token(token_type="mac"), "tool.token_invalid"),
        (token(expires_in="soon"), "tool.token_invalid"),
        (token(expires_in=[]), "tool.token_invalid"),
        (OutResponse(200, (), b"[" * 100_000, URL, 1), "tool.token_invalid"),
    ],
)
def test_what_is_no_token(answer: OutResponse, code: str) -> None:
    with pytest.raises(UpstreamFailed) as refused:
        apply(needs(LOGIN), http=FakeHttp([answer]))
    assert refused.value.code == code
    # Nothing of what the endpoint said leaves the service: it may repeat the credential.
    assert "no" not in refused.value.extensions


@pytest.mark.parametrize(
    ("expires_in", "life_s"),
    [
        (..., kept_tokens.DEFAULT_LIFE_S), (3600, 3600), ("600", 600), (10**12, kept_tokens.MAX_LIFE_S), (0, 0),
        (-5, 0), (float("nan"), 0), (True, 1),
    ],
)  # fmt: skip
def test_how_long_a_token_is_kept(expires_in: Any, life_s: float) -> None:
    now = [1000.0]
    tokens, http = (
        Tokens(lambda: now[0]),
        FakeHttp([token() if expires_in is ... else token(expires_in=expires_in)]),
    )

    def asked_at(seconds: float) -> int:
        now[0] = 1000.0 + seconds
        tokens.get(TOKEN_URL, "id", "secret", (), OWNER, http.request)
        return len(http.asked)

    assert asked_at(0) == 1
    useful_s = life_s - kept_tokens.EARLY_S
    if useful_s <= 0:
        assert asked_at(0) == 2
    else:
        assert asked_at(useful_s - 0.5) == 1
        assert asked_at(useful_s) == 2


@pytest.mark.parametrize(
    "other",
    [
        ("https://login.example/2", "id", "secret", ("a",), OWNER),
        (TOKEN_URL, "id2", "secret", ("a",), OWNER),
        (TOKEN_URL, "id", "rotated", ("a",), OWNER),
        (TOKEN_URL, "id", "secret", ("b",), OWNER),
        (TOKEN_URL, "id", "secret", (), OWNER),
        (TOKEN_URL, "id", "secret", ("a",), ("22", "tool@1")),
        (TOKEN_URL, "id", "secret", ("a",), ("11", "tool@2")),
    ],
)
def test_a_token_is_found_by_all_that_it_was_asked_for_with(other: tuple[Any, ...]) -> None:
    tokens, http = Tokens(), FakeHttp([token("first"), token("second")])
    first, key = tokens.get(TOKEN_URL, "id", "secret", ("a",), OWNER, http.request)
    again, kept = tokens.get(TOKEN_URL, "id", "secret", ("a",), OWNER, http.request)
    assert (first, key, again) == ("first", None, "first")
    assert kept is not None
    assert tokens.get(*other, http.request) == ("second", None)


def test_a_forgotten_token_is_asked_for_again_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tokens, "MAX_TOKENS", 2)
    tokens, http = Tokens(), FakeHttp([token()])

    def get(client: str) -> str | None:
        return tokens.get(TOKEN_URL, client, "s", (), OWNER, http.request)[1]

    get("a")
    kept = get("a")
    assert kept is not None
    tokens.forget([kept, "never kept"])
    assert get("a") is None
    get("b")
    get("a")
    get("c")
    assert (get("a") is not None, get("b")) == (True, None)


# -- MCP servers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "kind", "value", "addition"),
    [
        ("bearer", "http_bearer", {"token": "t"}, ("Authorization", "Bearer t")),
        ("basic", "http_basic", {"username": "a", "password": "b"}, ("Authorization", "Basic YTpi")),
        ("apiKey", "server_apiKey", {"header": "X-Api", "value": "v"}, ("X-Api", "v")),
        (
            "oauth2",
            "server_oauth2",
            {"tokenUrl": TOKEN_URL, "clientId": "a", "clientSecret": "b"},
            ("Authorization", "Bearer abc"),
        ),
    ],
)
def test_what_an_mcp_server_is_sent(
    scheme: str, kind: str, value: dict[str, Any], addition: tuple[str, str]
) -> None:
    found = authorize_server({scheme: (kind, value)}, Tokens(), OWNER, FakeHttp([token()]).request)
    assert [(one.location, one.name, one.value) for one in found.additions] == [("header", *addition)]
