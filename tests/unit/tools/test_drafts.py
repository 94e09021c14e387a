"""What is stored of a document, and what is said about one that does not hold."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from chalicelib.core.errors import Invalid
from chalicelib.tools import drafts
from chalicelib.tools.drafts import draft, draft_all, read_checked
from tests.tool_documents import document

CLIENT = {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "/token", "scopes": {}}}}


def test_a_draft_sums_its_document_up() -> None:
    given = document(ping={"at": ("post", "/ping"), "summary": "Ping", "tags": ["net"], "deprecated": True})
    made = draft(given)
    assert json.loads(made.text) == given
    assert (made.checksum, made.size) == (
        hashlib.sha256(made.text.encode()).hexdigest(),
        len(made.text.encode()),
    )
    assert made.operations == [
        {
            "operationId": "getPet", "method": "GET", "path": "/pets/{petId}", "summary": "One pet",
            "deprecated": False, "tags": [],
        },
        {
            "operationId": "ping", "method": "POST", "path": "/ping", "summary": "Ping", "deprecated": True,
            "tags": ["net"],
        },
    ]  # fmt: skip
    assert (made.security_schemes, made.origins) == ([], ["https://api.example:443"])


@pytest.mark.parametrize(
    "spelled",
    [lambda given: given, json.dumps, lambda given: json.dumps(given, indent=3)],
    ids=["object", "text", "spaced"],
)
def test_the_same_document_has_the_same_checksum_however_it_came(spelled: Any) -> None:
    assert draft(spelled(document())) == draft(document())


def test_size_counts_bytes_and_not_characters() -> None:
    given = document()
    given["info"]["title"] = "猫"
    assert draft(given).size == len(draft(given).text) + 2


@pytest.mark.parametrize(
    ("server", "token_url", "origins"),
    [
        ("https://api.example/v1", "/token", ["https://api.example:443"]),
        (
            "http://api.example:8080",
            "https://login.example/token",
            ["http://api.example:8080", "https://login.example:443"],
        ),
        ("HTTPS://API.Example", "https://api.example:443/t", ["https://api.example:443"]),
    ],
)
def test_origins_are_where_calls_and_token_requests_go(
    server: str, token_url: str, origins: list[str]
) -> None:
    given = document(server)
    given["components"]["securitySchemes"] = {
        "login": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": token_url, "scopes": {}}}}
    }
    made = draft(given)
    assert made.origins == origins
    assert made.security_schemes == [{"name": "login", "kind": "oauth2_client_credentials"}]


def test_a_document_leads_to_a_bounded_number_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "MOST_ORIGINS", 2)
    operations = {
        f"op{number}": {"at": ("get", f"/{number}"), "servers": [{"url": f"https://h{number}.example"}]}
        for number in range(3)
    }
    with pytest.raises(Invalid) as refused:
        draft(document(**operations), "/tools/1/openapi")
    assert [(one.pointer, one.rule) for one in refused.value.errors] == [
        ("/tools/1/openapi/servers", "openapi.too_many_hosts")
    ]
    assert len(draft(document(op0=operations["op0"] | {"at": ("get", "/0")})).origins) == 2


@pytest.mark.parametrize(
    ("source", "pointer"),
    [
        ({}, "/openapi"),
        ("", "/openapi"),
        ({**document(), "servers": []}, "/openapi/servers"),
        ({**document(), "info": {}}, "/openapi/info"),
    ],
)
def test_violations_begin_where_the_document_stood(source: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_checked(source)
    assert refused.value.code == "tool.invalid_document"
    assert refused.value.errors[0].pointer.startswith(pointer)


def test_all_documents_of_a_batch_are_told_of() -> None:
    places = [f"/tools/{number}/openapi" for number in range(3)]
    with pytest.raises(Invalid) as refused:
        draft_all([{}, document(), ""], places)
    assert {one.pointer.split("/")[2] for one in refused.value.errors} == {"0", "2"}
    assert len(draft_all([document()] * 3, places)) == 3


def test_a_batch_reports_at_most_a_hundred() -> None:
    broken = {**document(), "paths": {f"/{number}": {"get": 1} for number in range(80)}}
    with pytest.raises(Invalid) as refused:
        draft_all([broken] * 3, ["/a", "/b", "/c"])
    assert len(refused.value.errors) == 100
