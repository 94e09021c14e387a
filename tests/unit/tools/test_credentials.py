"""What a credential must look like, where it may go, and who finds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, HotplugError, Invalid, NotFound, PreconditionFailed
from chalicelib.core.hotcache import HotCache
from chalicelib.core.keys.secret_box import SecretBox
from chalicelib.core.outbound.addresses import origin_of
from chalicelib.core.representation import entity_tag
from chalicelib.tools import catalog, credentials, registry
from chalicelib.tools.credentials import SERVER_SCHEMES, Credential, check_values
from tests.conftest import create_schema
from tests.plugin_rows import OTHER, OWNER, caller
from tests.tool_rows import put_apps, put_tool

KINDS = {
    "key": "apiKey", "basic": "http_basic", "bearer": "http_bearer", "login": "oauth2_client_credentials",
    "odd": "unsupported",
}  # fmt: skip
LOGIN = {"clientId": "a", "clientSecret": "b"}


@pytest.mark.parametrize(
    "values",
    [
        {"key": {"value": "v"}},
        {"key": {"value": "!" + " ~" * 4000 + "!"}},
        {"basic": {"username": "ä", "password": ""}, "bearer": {"token": "a-b._~+/=="}},
        {"login": LOGIN},
        {"login": {**LOGIN, "scopes": ["read", "a:b/c"]}},
    ],
)
def test_what_has_its_schemes_form(values: dict[str, Any]) -> None:
    check_values(KINDS, values)


@pytest.mark.parametrize(
    ("values", "pointers"),
    [
        ({"key": {"value": ""}}, {"/key/value"}),
        ({"key": {"value": "a\r\nX-Evil: b"}}, {"/key/value"}),
        ({"key": {"value": " a"}}, {"/key/value"}),
        ({"key": {"value": "a\n"}}, {"/key/value"}),
        ({"key": {"value": "ä"}}, {"/key/value"}),
        ({"key": {"value": "a" * 8193}}, {"/key/value"}),
        ({"key": {"value": 1}}, {"/key/value"}),
        ({"key": {}}, {"/key"}),
        ({"key": {"value": "a", "more": 1}}, {"/key/more"}),
        ({"basic": {"username": "a:b", "password": "c"}}, {"/basic/username"}),
        ({"basic": {"username": "", "password": "c"}}, {"/basic/username"}),
        ({"bearer": {"token": "a b"}}, {"/bearer/token"}),
        ({"bearer": {"token": "a\n"}}, {"/bearer/token"}),
        ({"login": {**LOGIN, "scopes": ["a b"]}}, {"/login/scopes/0"}),
        ({"login": {**LOGIN, "scopes": ["a"] * 51}}, {"/login/scopes"}),
        ({"login": {**LOGIN, "tokenUrl": "https://evil.example"}}, {"/login/tokenUrl"}),
        ({"odd": {"value": "a"}}, {"/odd"}),
        ({"no/ne": {"value": "a"}}, {"/no~1ne"}),
        ({"key": {}, "bearer": {}, "none": {}}, {"/key", "/bearer", "/none"}),
    ],
)
def test_every_credential_that_does_not_hold_is_named(values: dict[str, Any], pointers: set[str]) -> None:
    with pytest.raises(Invalid) as refused:
        check_values(KINDS, values, "/credentials")
    assert refused.value.code == "tool.invalid_credentials"
    assert {one.pointer.removeprefix("/credentials") for one in refused.value.errors} >= pointers
    # What was sent may be a secret, if a bad one.
    assert "evil" not in str([one.as_dict() for one in refused.value.errors]).lower()


@pytest.mark.parametrize(
    ("values", "good"),
    [
        ({"apiKey": {"header": "X-Key", "value": "v"}}, True),
        ({"apiKey": {"header": "X Key", "value": "v"}}, False),
        ({"apiKey": {"header": "X-Key:", "value": "v"}}, False),
        ({"apiKey": {"value": "v"}}, False),
        ({"oauth2": {"tokenUrl": "https://a.example/t", **LOGIN}}, True),
        ({"oauth2": LOGIN}, False),
        ({"key": {"value": "v"}}, False),
    ],
)
def test_an_mcp_server_has_schemes_of_its_own(values: dict[str, Any], good: bool) -> None:
    if good:
        check_values(SERVER_SCHEMES, values)
        return
    with pytest.raises(Invalid):
        check_values(SERVER_SCHEMES, values)


# -- sealed, opened, stored ------------------------------------------------------------------------------------------


@pytest.fixture
def database(sqlite_url: str) -> Iterator[DatabaseService]:
    service = create_schema(sqlite_url)
    put_apps(service)
    yield service
    service.close()


@pytest.fixture
def cache(database: DatabaseService) -> HotCache:
    made = HotCache(database)
    made.refresh()
    return made


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> dict[int, SecretBox]:
    """A box of its own for each app, as the master key would open it."""
    made = {app_id: SecretBox(app_id, {1: bytes([app_id]) * 32}) for app_id in (OWNER, OTHER)}
    monkeypatch.setattr(credentials, "box_of", lambda _database, _cache, app_id: lambda: made[app_id])
    return made


def sealed(box: SecretBox, tool_id: str, origins: list[str]) -> Credential:
    [one] = credentials.seal(box, tool_id, KINDS, {"key": {"value": "a long secret"}}, origins)
    return one


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("https://api.example/v1/pets?x=1", True),
        ("https://api.example:443/", True),
        ("http://api.example/", False),
        ("https://api.example:8443/", False),
        ("https://api.example.evil.example/", False),
        ("https://evil.example/https://api.example", False),
    ],
)
def test_a_credential_goes_only_where_the_tool_led_when_it_was_stored(
    database: DatabaseService, cache: HotCache, boxes: dict[int, SecretBox], url: str, given: bool
) -> None:
    one = sealed(boxes[OWNER], "tool@1", [origin_of("https://api.example")])
    found = credentials.reveal(database, cache, caller(), "tool@1", one, url)
    assert found == ({"value": "a long secret"} if given else None)
    assert "secret" not in one.ciphertext


@pytest.mark.parametrize(
    ("app_id", "tool_id", "scheme"),
    [(OTHER, "tool@1", "key"), (OWNER, "tool@2", "key"), (OWNER, "tool@1", "other")],
)
def test_a_ciphertext_opens_only_in_its_place(
    database: DatabaseService,
    cache: HotCache,
    boxes: dict[int, SecretBox],
    app_id: int,
    tool_id: str,
    scheme: str,
) -> None:
    one = sealed(boxes[OWNER], "tool@1", ["https://api.example:443"])
    moved = Credential(scheme, one.kind, one.ciphertext)
    with pytest.raises(HotplugError):
        credentials.reveal(database, cache, caller(app_id), tool_id, moved, "https://api.example")


def test_each_app_finds_its_own(database: DatabaseService, cache: HotCache) -> None:
    tool = put_tool(database, shared=True)

    def put(app_id: int, *schemes: str) -> dict[str, Any]:
        found = catalog.find(cache, caller(app_id), tool)
        given = [Credential(scheme, "apiKey", f"sealed by {app_id}") for scheme in schemes]
        result: dict[str, Any] = database.run(
            lambda session: credentials.put(session, caller(app_id), found, given)
        )
        cache.refresh()
        return result

    assert [one["scheme"] for one in put(OWNER, "b", "a")["items"]] == ["a", "b"]
    assert [one["scheme"] for one in put(OTHER, "a")["items"]] == ["a"]
    assert set(credentials.stored(cache, caller(), tool)) == {"a", "b"}
    assert credentials.stored(cache, caller(OTHER), tool)["a"].ciphertext == f"sealed by {OTHER}"
    # Storing one anew replaces it and leaves the others.
    assert [one["scheme"] for one in put(OWNER, "b")["items"]] == ["a", "b"]
    found = catalog.find(cache, caller(OTHER), tool)
    with pytest.raises(NotFound) as refused:
        database.run(lambda session: credentials.delete(session, caller(OTHER), found, "b"))
    assert refused.value.code == "tool.credential_not_found"
    database.run(lambda session: credentials.delete(session, caller(OTHER), found, None))
    database.run(lambda session: credentials.delete(session, caller(OTHER), found, None))
    cache.refresh()
    assert credentials.stored(cache, caller(OTHER), tool) == {}
    assert set(credentials.stored(cache, caller(), tool)) == {"a", "b"}


def test_an_app_has_a_bounded_number_for_a_tool(
    database: DatabaseService, cache: HotCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "MOST_CREDENTIALS", 1)
    found = catalog.find(cache, caller(), put_tool(database))
    given = [Credential(scheme, "apiKey", "sealed") for scheme in ("a", "b")]
    database.run(lambda session: credentials.put(session, caller(), found, given[:1]))
    with pytest.raises(Conflict) as refused:
        database.run(lambda session: credentials.put(session, caller(), found, given[1:]))
    assert refused.value.code == "tool.too_many_credentials"


def test_credentials_are_changed_by_who_saw_the_list_of_them(
    database: DatabaseService, cache: HotCache
) -> None:
    found = catalog.find(cache, caller(), put_tool(database))
    given = [Credential(scheme, "apiKey", "sealed") for scheme in ("a", "b")]

    def put(if_match: str | None, number: int) -> str:
        return database.run(
            lambda session: entity_tag(
                credentials.put(session, caller(), found, given[number : number + 1], if_match)
            )
        )

    def delete(if_match: str) -> None:
        database.run(lambda session: credentials.delete(session, caller(), found, None, if_match))

    first = put(None, 0)
    second = put(first, 1)
    for stale in (lambda: put(first, 0), lambda: delete(first)):
        with pytest.raises(PreconditionFailed):
            stale()
    with database.reads() as session:
        assert entity_tag(credentials.list_credentials(session, caller(), found.tool_id)) == second
    delete(second)
    assert not credentials.stored(cache, caller(), found.tool_id)


def test_nothing_is_stored_for_a_tool_that_was_deleted_or_taken_back_meanwhile(
    database: DatabaseService, cache: HotCache
) -> None:
    tool = put_tool(database, shared=True)
    found = catalog.find(cache, caller(OTHER), tool)
    given = [Credential("a", "apiKey", "sealed")]
    database.run(
        lambda session: registry.change(session, caller(), tool, "V1.0", "*", registry.Change(shared=False))
    )
    with pytest.raises(NotFound):
        database.run(lambda session: credentials.put(session, caller(OTHER), found, given))
    database.run(lambda session: registry.delete(session, caller(), tool, None, None))
    with pytest.raises(NotFound):
        database.run(lambda session: credentials.put(session, caller(), found, given))
