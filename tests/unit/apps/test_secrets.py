"""Where a secret may be sent that a flow names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chalicelib.apps import secrets
from chalicelib.apps.models import App, AppSecret
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Forbidden
from tests.conftest import create_schema


@pytest.fixture
def database(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabaseService]:
    """A secret for one host over HTTPS, and for one port of another."""
    service = create_schema(sqlite_url)
    with service.session_getter() as session:
        session.add(App(id=1, name="Acme", alias_id="acme"))
        session.flush()
        hosts = secrets.checked_hosts(["llm.example.com", "local.example.com:8080"])
        session.add(AppSecret(app_id=1, name="key", ciphertext="sealed", hosts=hosts))
    monkeypatch.setattr(secrets, "reveal", lambda *_: "s3cret")
    yield service
    service.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://llm.example.com/v1",
        "https://llm.example.com:443/v1",
        "https://LLM.example.com",
        "http://local.example.com:8080/v1",
        "https://local.example.com:8080/v1",
    ],
)
def test_a_secret_goes_where_an_admin_said(database: DatabaseService, url: str) -> None:
    assert secrets.reveal_for(database, 1, "key", url) == "s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "http://llm.example.com/v1",
        "http://llm.example.com:443/v1",
        "https://llm.example.com:8443/v1",
        "https://llm.example.com:80/v1",
        "https://local.example.com/v1",
        "http://local.example.com:8081/v1",
        "https://llm.example.com.evil.example/v1",
        "https://sub.llm.example.com/v1",
    ],
)
def test_a_secret_goes_to_no_other_port_and_is_not_sent_in_the_clear(
    database: DatabaseService, url: str
) -> None:
    with pytest.raises(Forbidden) as refused:
        secrets.reveal_for(database, 1, "key", url)
    assert refused.value.code == "secret.other_host"
