from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from chalicelib.apps import service
from chalicelib.apps.authentication import authenticate
from chalicelib.apps.models import App, AppCredential
from chalicelib.core.audit import AuditLog
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, NotFound
from chalicelib.core.hotcache import HotCache
from tests.conftest import create_schema

ADMIN = Caller(7, "admin", 8, "admin", "r-1")


@pytest.fixture
def database(sqlite_url: str) -> Iterator[DatabaseService]:
    made = create_schema(sqlite_url)
    yield made
    made.close()


def login(database: DatabaseService, credential: str) -> Caller:
    cache = HotCache(database)
    cache.refresh()
    return authenticate(cache, f"Bearer {credential}", "r")


def test_the_first_admin_gets_a_secret_that_is_shown_once(database: DatabaseService) -> None:
    credential = database.run(lambda session: service.ensure_first_admin(session, {}))
    assert credential is not None
    assert login(database, credential).role == "admin"
    assert database.run(lambda session: service.ensure_first_admin(session, {})) is None


def test_a_secret_made_elsewhere_is_stored_as_its_hash(database: DatabaseService) -> None:
    given = {
        "HOTPLUG_ADMIN_API_KEY": "root",
        "HOTPLUG_ADMIN_SECRET_HASH": hashlib.sha256(b"from the vault").hexdigest(),
    }
    assert database.run(lambda session: service.ensure_first_admin(session, given)) is None
    assert login(database, "root:from the vault").alias_id == "admin"
    with database.reads() as session:
        assert len(session.scalars(select(AppCredential)).all()) == 1


@pytest.mark.parametrize(
    ("api_key", "secret_hash"),
    [
        ("root", ""),
        ("", "0" * 64),
        ("root", "0" * 63),
        ("root", "x" * 64),
        ("a:b", "0" * 64),
        ("k" * 51, "0" * 64),
    ],
)
def test_a_half_given_admin_is_refused_and_none_is_made(
    database: DatabaseService, api_key: str, secret_hash: str
) -> None:
    given = {"HOTPLUG_ADMIN_API_KEY": api_key, "HOTPLUG_ADMIN_SECRET_HASH": secret_hash}
    with pytest.raises(ValueError, match="HOTPLUG_ADMIN_"):
        database.run(lambda session: service.ensure_first_admin(session, given))
    with database.reads() as session:
        assert session.scalars(select(App)).all() == []


def test_apps_are_found_by_alias_and_id_while_they_are_enabled(database: DatabaseService) -> None:
    made = database.run(lambda session: service.create_app(session, ADMIN, "acme", {"name": "Acme"}))
    app_id = int(made["id"])
    with database.reads() as session:
        assert service.enabled_app_id(session, "acme") == app_id
        assert service.enabled_alias(session, app_id) == "acme"
    database.run(lambda session: service.patch_app(session, ADMIN, "acme", {"status": 0}, None))
    with database.reads() as session:
        assert service.enabled_app_id(session, "acme") is None
        assert service.enabled_alias(session, app_id) is None
        assert service.enabled_app_id(session, "nobody") is None


def test_every_change_names_its_author_and_leaves_digests(database: DatabaseService) -> None:
    database.run(lambda session: service.create_app(session, ADMIN, "acme", {"name": "Acme"}))
    changed = database.run(lambda session: service.patch_app(session, ADMIN, "acme", {"name": "B"}, None))
    assert (changed["createBy"], changed["updateBy"]) == ("8", "8")
    with database.reads() as session:
        first, second = session.scalars(select(AuditLog).order_by(AuditLog.id))
    assert (first.action, first.before_digest) == ("app.create", None)
    assert (second.action, second.before_digest) == ("app.update", first.after_digest)
    assert (second.app_id, second.credential_id, second.request_id) == (7, 8, "r-1")


def test_what_an_app_owns_is_named_and_nothing_is_deleted(database: DatabaseService) -> None:
    database.run(lambda session: service.create_app(session, ADMIN, "acme", {"name": "Acme"}))
    with pytest.raises(Conflict) as refused:
        database.run(
            lambda session: service.delete_app(
                session, ADMIN, "acme", None, lambda *_: ["plugins", "installs"]
            )
        )
    assert refused.value.extensions == {"owns": ["plugins", "installs"]}
    database.run(lambda session: service.delete_app(session, ADMIN, "acme", None, lambda *_: []))
    with pytest.raises(NotFound), database.reads() as session:
        service.get_app(session, "acme")
