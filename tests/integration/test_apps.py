from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from chalicelib.apps import secrets
from chalicelib.apps.credentials import add_credential, delete_credential
from chalicelib.apps.models import WEBHOOK_SECRET_NAME, App, AppCredential, AppSecret
from chalicelib.apps.service import create_app, ensure_first_admin
from chalicelib.core import process
from chalicelib.core.audit import AuditLog
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict
from chalicelib.core.keys.data_keys import DataKey
from chalicelib.plugins.models import Plugin
from tests.http import Client, Deployment, deployed

NOBODY = Caller(0, "admin", 0, "admin", "test")
APPS = "/api/v1/apps"


@pytest.fixture
def deployment(database_url: str, tmp_path: Path, with_schema: None) -> Iterator[Deployment]:
    key_file = tmp_path / "master.key"
    key_file.write_bytes(os.urandom(32))
    with deployed(database_url, HOTPLUG_KEY_FILE=str(key_file)) as made:
        yield made


@pytest.fixture
def client(deployment: Deployment) -> Client:
    return deployment.client


def rows(model: Any) -> list[Any]:
    with process.database().reads() as session:
        return list(session.scalars(select(model)))


def audited(client: Client, **filters: str) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    items: list[dict[str, Any]] = client.get(f"/api/v1/audit?{query}").json["items"]
    return items


# -- apps ----------------------------------------------------------------------------------------------------


def test_an_app_is_created_shown_listed_changed_and_deleted(client: Client) -> None:
    made = client.post(APPS, {"aliasId": "acme", "name": "Acme", "platReleaseAuth": 5, "source": 2})
    assert (made.status, made.headers["location"]) == (201, f"{APPS}/acme")
    assert made.json["platReleaseAuth"] == 5
    assert (made.json["source"], made.json["actualSource"], made.json["status"]) == (2, 2, 1)

    shown = client.get(f"{APPS}/acme")
    assert shown.json == made.json
    assert shown.headers["etag"] == made.headers["etag"]
    assert [item["aliasId"] for item in client.get(APPS).json["items"]] == ["acme", "admin"]

    changed = client.patch(f"{APPS}/acme", {"name": "Acme Ltd", "auditPolicy": 1})
    assert (changed.status, changed.json["name"], changed.json["auditPolicy"]) == (200, "Acme Ltd", 1)
    assert changed.json["updatedAt"] > made.json["updatedAt"]

    assert client.delete(f"{APPS}/acme").status == 204
    assert client.get(f"{APPS}/acme").json["code"] == "app.not_found"
    actions = [row["action"] for row in audited(client, objectType="app", objectId="acme")]
    assert actions == ["app.delete", "app.update", "app.create"]


def test_an_alias_is_given_once(client: Client) -> None:
    assert client.post(APPS, {"aliasId": "acme", "name": "A"}).status == 201
    again = client.post(APPS, {"aliasId": "acme", "name": "B"})
    assert (again.status, again.json["code"]) == (409, "app.exists")
    assert client.get(f"{APPS}/acme").json["name"] == "A"


def test_every_violation_of_a_body_is_reported_and_nothing_is_stored(client: Client) -> None:
    bad = {"aliasId": "A b", "name": "", "platReleaseAuth": 8, "status": 1, "isTenant": True}
    refused = client.post(APPS, bad)
    assert refused.status == 422
    pointers = {error["pointer"] for error in refused.json["errors"]}
    assert pointers >= {"/aliasId", "/name", "/platReleaseAuth", "/isTenant"}
    assert any(
        "status" in error["message"] or error["pointer"] == "/status" for error in refused.json["errors"]
    )
    assert [app.alias_id for app in rows(App)] == ["admin"]


def test_a_patch_that_changes_nothing_writes_nothing(client: Client) -> None:
    made = client.post(APPS, {"aliasId": "acme", "name": "Acme"})
    same = client.patch(f"{APPS}/acme", {"name": "Acme"})
    assert same.json == made.json
    assert [row["action"] for row in audited(client, objectId="acme")] == ["app.create"]


def test_a_disabled_app_is_refused_by_its_next_request_and_admitted_when_enabled(
    deployment: Deployment, client: Client
) -> None:
    viewer = deployment.credential("acme", "viewer")
    assert client.get("/api/v1/me", credential=viewer).status == 200

    client.patch(f"{APPS}/acme", {"status": 0})
    refused = client.get("/api/v1/me", credential=viewer)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="hotplug"')

    client.patch(f"{APPS}/acme", {"status": 1})
    assert client.get("/api/v1/me", credential=viewer).status == 200


def test_an_app_that_owns_something_stays(client: Client) -> None:
    made = client.post(APPS, {"aliasId": "acme", "name": "Acme"}).json
    owned = Plugin(
        plugin_id="plugin_owned_abc123",
        app_id=int(made["id"]),
        name="owned",
        version="1.0.0",
        plugin_type="custom",
        entry_point="main.wasm",
        runtime="wasm",
        checksum="0" * 64,
        s3_path="plugins/x.zip",
        manifest={},
        config_schema={},
        params_schema={},
        default_config={},
    )
    process.database().run(lambda session: session.add(owned))
    refused = client.delete(f"{APPS}/acme")
    assert (refused.status, refused.json["code"]) == (409, "app.owns_resources")
    assert refused.json["owns"] == ["plugins"]

    process.database().run(lambda session: session.delete(session.get(Plugin, owned.id)))
    assert client.delete(f"{APPS}/acme").status == 204


def test_deleting_an_app_removes_its_credentials_secrets_and_data_keys(
    deployment: Deployment, client: Client
) -> None:
    viewer = deployment.credential("acme", "viewer")
    client.put(f"{APPS}/acme/secrets/llm", {"value": "v"})
    assert client.get("/api/v1/me", credential=viewer).status == 200
    assert client.delete(f"{APPS}/acme").status == 204
    assert client.get("/api/v1/me", credential=viewer).status == 401
    assert [len(rows(model)) for model in (AppCredential, AppSecret, DataKey)] == [1, 0, 0]


# -- the last admin ------------------------------------------------------------------------------------------


def test_the_last_admin_can_neither_be_deleted_nor_disabled(client: Client) -> None:
    own = client.get("/api/v1/me").json
    attempts = [
        client.delete(f"{APPS}/admin/credentials/{own['credentialId']}"),
        client.patch(f"{APPS}/admin", {"status": 0}),
        client.delete(f"{APPS}/admin"),
    ]
    assert [(answer.status, answer.json["code"]) for answer in attempts] == [(409, "app.last_admin")] * 3
    assert client.get("/api/v1/me").status == 200


def test_an_admin_may_go_once_another_can_log_in(deployment: Deployment, client: Client) -> None:
    own = client.get("/api/v1/me").json
    successor = deployment.credential("acme", "admin")
    # GIVEN a second admin whose app is disabled, it does not count
    client.patch(f"{APPS}/acme", {"status": 0})
    assert client.delete(f"{APPS}/admin/credentials/{own['credentialId']}").status == 409
    client.patch(f"{APPS}/acme", {"status": 1})
    assert client.delete(f"{APPS}/admin/credentials/{own['credentialId']}").status == 204
    assert client.get("/api/v1/me").status == 401
    assert client.get("/api/v1/me", credential=successor).status == 200


def test_an_expired_admin_does_not_count(client: Client) -> None:
    own = client.get("/api/v1/me").json
    made = client.post(f"{APPS}/admin/credentials", {"role": "admin"}).json

    def expire(session: Any) -> None:
        row = session.get(AppCredential, int(made["id"]))
        row.expires_at = datetime.now(UTC) - timedelta(seconds=1)

    process.database().run(expire)
    assert client.delete(f"{APPS}/admin/credentials/{own['credentialId']}").status == 409


def test_two_admins_who_delete_each_other_leave_one(database: DatabaseService) -> None:
    def prepare(session: Any) -> list[int]:
        for alias in ("one", "two"):
            create_app(session, NOBODY, alias, {"name": alias})
        return [
            int(add_credential(session, NOBODY, alias, role="admin").resource["id"])
            for alias in ("one", "two")
        ]

    ids = database.run(prepare)
    outcomes: list[str] = []
    barrier = threading.Barrier(2)

    def remove(alias: str, credential_id: int) -> None:
        service = DatabaseService(database.database_url)
        barrier.wait()
        try:
            service.run(lambda session: delete_credential(session, NOBODY, alias, credential_id, None))
            outcomes.append("deleted")
        except Conflict as error:
            outcomes.append(error.code)
        service.close()

    threads = [threading.Thread(target=remove, args=pair) for pair in zip(("one", "two"), ids, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["app.last_admin", "deleted"]


# -- credentials ---------------------------------------------------------------------------------------------


def test_a_credential_is_rotated_without_a_gap(deployment: Deployment, client: Client) -> None:
    old = deployment.credential("acme", "caller")
    made = client.post(f"{APPS}/acme/credentials", {"role": "caller", "label": "new"})
    assert made.status == 201
    new = f"{made.json['apiKey']}:{made.json['apiSecret']}"
    assert [client.get("/api/v1/me", credential=one).status for one in (old, new)] == [200, 200]

    listed = client.get(f"{APPS}/acme/credentials").json["items"]
    first = next(item for item in listed if item["label"] == "")
    assert client.delete(f"{APPS}/acme/credentials/{first['id']}").status == 204
    assert [client.get("/api/v1/me", credential=one).status for one in (old, new)] == [401, 200]


def test_a_secret_is_shown_once_and_stored_as_its_hash(deployment: Deployment, client: Client) -> None:
    credential = deployment.credential("acme", "viewer")
    secret = credential.partition(":")[2]
    assert len(secret) == 43
    listing = client.get(f"{APPS}/acme/credentials")
    assert secret not in listing.body
    assert "secretHash" not in listing.body
    with process.database().reads() as session:
        stored = session.execute(text("SELECT * FROM app_credential")).all()
    assert secret not in str(stored)
    assert all(secret not in str(vars(row)) for row in rows(AuditLog))


def test_the_listing_tells_when_a_credential_was_used(deployment: Deployment, client: Client) -> None:
    unused = client.post(f"{APPS}/admin/credentials", {"role": "viewer"}).json["id"]
    used = {item["id"]: item["lastUsedAt"] for item in client.get(f"{APPS}/admin/credentials").json["items"]}
    assert used.pop(unused) is None
    assert all(at is not None for at in used.values())


@pytest.mark.parametrize(
    "expires_at",
    [
        "2020-01-01T00:00:00Z",
        "2999-02-30T00:00:00Z",
        "2999-01-01T00:00:00+99:99",
        "tomorrow",
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_an_expiry_that_is_past_or_no_time_is_refused(client: Client, expires_at: str) -> None:
    refused = client.post(f"{APPS}/admin/credentials", {"role": "viewer", "expiresAt": expires_at})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/expiresAt")
    assert len(rows(AppCredential)) == 1


def test_an_expired_credential_is_refused(client: Client) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    made = client.post(f"{APPS}/admin/credentials", {"role": "viewer", "expiresAt": soon}).json
    credential = f"{made['apiKey']}:{made['apiSecret']}"
    assert client.get("/api/v1/me", credential=credential).status == 200
    assert made["expiresAt"][:19] == soon[:19]

    def expire(session: Any) -> None:
        session.get(AppCredential, int(made["id"])).expires_at = datetime.now(UTC) - timedelta(seconds=1)

    process.database().run(expire)
    assert client.get("/api/v1/me", credential=credential).status == 401


def test_another_apps_credential_is_not_found(deployment: Deployment, client: Client) -> None:
    deployment.credential("acme", "viewer")
    other = client.get(f"{APPS}/acme/credentials").json["items"][0]["id"]
    for credential_id in (other, "1", "9223372036854775807", "9999999999999999999"):
        assert client.delete(f"{APPS}/admin/credentials/{credential_id}").status == 404
    assert len(client.get(f"{APPS}/acme/credentials").json["items"]) == 1


def test_an_app_has_a_bounded_number_of_credentials(database: DatabaseService) -> None:
    def work(session: Any) -> None:
        create_app(session, NOBODY, "acme", {"name": "a"})
        for _ in range(51):
            add_credential(session, NOBODY, "acme", role="viewer")

    with pytest.raises(Conflict) as refused:
        database.run(work)
    assert refused.value.code == "credential.too_many"


# -- secrets -------------------------------------------------------------------------------------------------


def test_a_secret_is_stored_encrypted_and_never_returned(client: Client) -> None:
    client.post(APPS, {"aliasId": "acme", "name": "Acme"})
    stored = client.put(f"{APPS}/acme/secrets/llm-key", {"value": "sk-very-secret"})
    assert (stored.status, set(stored.json)) == (200, {"name", "hosts", "updatedAt"})
    assert client.get(f"{APPS}/acme/secrets").json == {"items": [stored.json], "nextCursor": None}
    row = rows(AppSecret)[0]
    assert "very-secret" not in str(vars(row))
    assert secrets.reveal(process.database(), row.app_id, "llm-key") == "sk-very-secret"

    wrong = client.put(
        f"{APPS}/acme/secrets/llm-key", {"value": "x", "hosts": ["a.example", "b c", "d:99999"]}
    )
    assert [one["pointer"] for one in wrong.json["errors"]] == ["/hosts/1", "/hosts/2"]
    client.put(
        f"{APPS}/acme/secrets/llm-key", {"value": "rotated", "hosts": ["API.example", "b.example:8443"]}
    )
    assert client.get(f"{APPS}/acme/secrets").json["items"][0]["hosts"] == ["api.example", "b.example:8443"]
    assert secrets.reveal(process.database(), row.app_id, "llm-key") == "rotated"
    assert client.delete(f"{APPS}/acme/secrets/llm-key").status == 204
    assert client.delete(f"{APPS}/acme/secrets/llm-key").json["code"] == "secret.not_found"
    actions = [row["action"] for row in audited(client, objectType="secret", objectId="acme/llm-key")]
    assert actions == ["secret.delete", "secret.put", "secret.put"]


def test_a_secret_moved_to_another_name_does_not_open(client: Client) -> None:
    client.post(APPS, {"aliasId": "acme", "name": "Acme"})
    client.put(f"{APPS}/acme/secrets/a", {"value": "one"})

    def move(session: Any) -> int:
        row = session.scalars(select(AppSecret)).one()
        row.name = "b"
        return int(row.app_id)

    app_id = process.database().run(move)
    with pytest.raises(Exception, match="cannot be decrypted"):
        secrets.reveal(process.database(), app_id, "b")


def test_an_update_of_a_secret_is_conditional(client: Client) -> None:
    client.post(APPS, {"aliasId": "acme", "name": "Acme"})
    path = f"{APPS}/acme/secrets/a"
    assert client.put(path, {"value": "1"}, headers={"If-Match": "*"}).status == 412
    first = client.put(path, {"value": "1"})
    second = client.put(path, {"value": "2"}, headers={"If-Match": first.headers["etag"]})
    assert second.status == 200
    assert client.put(path, {"value": "3"}, headers={"If-Match": first.headers["etag"]}).status == 412
    assert client.delete(path, headers={"If-Match": first.headers["etag"]}).status == 412
    assert client.delete(path, headers={"If-Match": second.headers["etag"]}).status == 204


def test_a_webhook_secret_is_shown_once_and_listed_nowhere(client: Client) -> None:
    client.post(APPS, {"aliasId": "acme", "name": "Acme"})
    first = client.post(f"{APPS}/acme/webhook-secret")
    second = client.post(f"{APPS}/acme/webhook-secret")
    assert (first.status, second.status) == (201, 201)
    assert first.json["secret"].startswith("whsec_")
    assert first.json["secret"] != second.json["secret"]
    row = rows(AppSecret)[0]
    assert secrets.reveal(process.database(), row.app_id, WEBHOOK_SECRET_NAME) == second.json["secret"]
    assert client.get(f"{APPS}/acme/secrets").json["items"] == []


@pytest.mark.parametrize("name", ["$webhook", "%24webhook", "a%2Fb", "..", "%00", "a" * 65, "1a"])
def test_a_name_that_no_client_may_use_is_not_found(client: Client, name: str) -> None:
    assert client.put(f"{APPS}/admin/secrets/{name}", {"value": "v"}).status == 404
    assert rows(AppSecret) == []


def test_secrets_of_an_unknown_app_are_not_found(client: Client) -> None:
    assert client.put(f"{APPS}/nobody/secrets/a", {"value": "v"}).json["code"] == "app.not_found"
    assert client.get(f"{APPS}/nobody/secrets").status == 404
    assert client.post(f"{APPS}/nobody/webhook-secret").status == 404
    assert rows(DataKey) == []


# -- the first admin -----------------------------------------------------------------------------------------


def test_the_first_admin_is_created_once_however_many_start(database: DatabaseService) -> None:
    made: list[str | None] = []
    barrier = threading.Barrier(4)

    def migrate() -> None:
        service = DatabaseService(database.database_url)
        barrier.wait()
        made.append(service.run(ensure_first_admin))
        service.close()

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(credential is not None for credential in made) == 1
    assert len(made) == 4
    with database.reads() as session:
        assert [app.alias_id for app in session.scalars(select(App))] == ["admin"]
        assert len(session.scalars(select(AppCredential)).all()) == 1
