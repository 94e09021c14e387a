from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from chalicelib.core import process
from chalicelib.core.audit import AuditLog
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, Forbidden, Invalid, NotFound
from chalicelib.plugins import catalog
from chalicelib.plugins.configs import resolution, snapshots, store, validation
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.models import Plugin, PluginHistory
from tests.http import Deployment, Response, deployed, settings
from tests.plugin_rows import OTHER, OWNER, caller, put_plugin, warm_cache

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["url", "token"],
    "properties": {
        "url": {"type": "string"},
        "token": {"type": "string", "format": "password", "minLength": 3},
        "channel": {"type": "string", "maxLength": 8},
    },
    "additionalProperties": False,
}


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "master.key"
    path.write_bytes(os.urandom(32))
    return str(path)


@pytest.fixture
def plugin_id(database: DatabaseService, database_url: str, key_file: str) -> Iterator[str]:
    """A shared plugin of OWNER with a configSchema, in a deployment with a master key."""
    with settings(HOTPLUG_DATABASE_URL=database_url, HOTPLUG_KEY_FILE=key_file):
        yield put_plugin(
            database, visibility="shared", configSchema=SCHEMA, defaultConfig={"channel": "#default"}
        )


def add(
    database: DatabaseService,
    plugin_id: str,
    values: dict[str, Any],
    *,
    who: Caller | None = None,
    scope: str = "app",
    subject: str | None = None,
    name: str = "main",
    is_default: bool | None = None,
) -> dict[str, Any]:
    who, cache = who or caller(), warm_cache(database)
    draft = store.draft_new(
        database, cache, who, catalog.find(cache, who, plugin_id), scope=scope, subject=subject, name=name,
        values=values, is_default=is_default,
    )  # fmt: skip
    return database.run(lambda session: store.create(session, who, draft))


def change(
    database: DatabaseService,
    plugin_id: str,
    config_id: str,
    values: dict[str, Any],
    *,
    who: Caller | None = None,
    name: str | None = None,
    is_default: bool | None = None,
) -> dict[str, Any]:
    draft = drafted(database, plugin_id, config_id, values, who=who, name=name, is_default=is_default)
    return database.run(lambda session: store.replace(session, who or caller(), draft, None))


def drafted(
    database: DatabaseService,
    plugin_id: str,
    config_id: str,
    values: dict[str, Any],
    *,
    who: Caller | None = None,
    name: str | None = None,
    is_default: bool | None = None,
) -> store.Draft:
    who, cache = who or caller(), warm_cache(database)
    found = catalog.find(cache, who, plugin_id)
    return store.draft_change(
        database, cache, who, found, config_id, name=name, values=values, is_default=is_default
    )


def in_force(
    database: DatabaseService,
    plugin_id: str,
    *,
    app_id: int = OWNER,
    subject: str | None = None,
    config_id: str | None = None,
) -> dict[str, Any]:
    cache = warm_cache(database)
    found = catalog.find(cache, caller(app_id), plugin_id)
    return resolution.resolve(database, cache, found, app_id=app_id, subject=subject, config_id=config_id)


def rows(database: DatabaseService, model: Any) -> list[Any]:
    with database.reads() as session:
        return list(session.scalars(select(model)))


FULL = {"url": "https://a.example", "token": "s3cret"}


# -- what is in force ----------------------------------------------------------------------------------------------


def test_user_over_app_over_global_over_the_manifests_defaults(
    database: DatabaseService, plugin_id: str
) -> None:
    add(database, plugin_id, {"url": "global", "token": "t-global"}, scope="global")
    add(database, plugin_id, {"token": "t-app"})
    add(database, plugin_id, {"channel": "#u1"}, scope="user", subject="u1")

    assert in_force(database, plugin_id, subject="u1") == {
        "url": "global",
        "token": "t-app",
        "channel": "#u1",
    }
    assert in_force(database, plugin_id, subject="u2") == {
        "url": "global", "token": "t-app", "channel": "#default",
    }  # fmt: skip
    assert in_force(database, plugin_id, app_id=OTHER, subject="u1") == {
        "url": "global", "token": "t-global", "channel": "#default",
    }  # fmt: skip


def test_a_named_config_stands_in_its_scope_and_narrower_ones_do_not_apply(
    database: DatabaseService, plugin_id: str
) -> None:
    add(database, plugin_id, {"url": "global", "token": "t-global"}, scope="global")
    add(database, plugin_id, {"url": "app", "channel": "#app"})
    staging = add(database, plugin_id, {"url": "staging"}, name="staging")
    add(database, plugin_id, {"channel": "#u1"}, scope="user", subject="u1")
    assert not staging["isDefault"]

    named = in_force(database, plugin_id, subject="u1", config_id=staging["configId"])
    assert named == {"url": "staging", "token": "t-global", "channel": "#default"}


def test_a_named_user_config_lies_over_its_app_whoever_it_is_for(
    database: DatabaseService, plugin_id: str
) -> None:
    add(database, plugin_id, FULL)
    of_user = add(database, plugin_id, {"channel": "#u1"}, scope="user", subject="u1")
    assert in_force(database, plugin_id, config_id=of_user["configId"]) == {**FULL, "channel": "#u1"}


def test_a_config_of_another_app_is_not_found(database: DatabaseService, plugin_id: str) -> None:
    theirs = add(database, plugin_id, FULL, who=caller(OTHER))
    with pytest.raises(NotFound) as raised:
        in_force(database, plugin_id, config_id=theirs["configId"])
    assert raised.value.code == "config.not_found"


def test_a_user_of_the_same_name_in_another_app_is_another_user(
    database: DatabaseService, plugin_id: str
) -> None:
    add(database, plugin_id, FULL, scope="user", subject="u1")
    add(database, plugin_id, {**FULL, "url": "b"}, who=caller(OTHER), scope="user", subject="u1")
    assert in_force(database, plugin_id, subject="u1")["url"] == FULL["url"]
    assert in_force(database, plugin_id, app_id=OTHER, subject="u1")["url"] == "b"


def test_what_is_missing_in_the_end_is_named(database: DatabaseService, plugin_id: str) -> None:
    add(database, plugin_id, {"url": "x"})
    with pytest.raises(Invalid) as raised:
        in_force(database, plugin_id)
    assert raised.value.code == "config.incomplete"
    assert [(problem.pointer, problem.rule) for problem in raised.value.errors] == [
        ("/config", "schema.required")
    ]


def test_a_change_is_in_force_for_the_next_request_of_a_warm_process(
    database: DatabaseService, plugin_id: str
) -> None:
    made = add(database, plugin_id, FULL)
    cache = warm_cache(database)
    found = catalog.find(cache, caller(), plugin_id)

    def now() -> dict[str, Any]:
        cache.refresh()
        return resolution.resolve(database, cache, found, app_id=OWNER, subject="u1", config_id=None)

    assert now()["url"] == "https://a.example"
    change(database, plugin_id, made["configId"], {"url": "https://b.example", "token": "***"})
    assert now() == {"url": "https://b.example", "token": "s3cret", "channel": "#default"}
    add(database, plugin_id, {"channel": "#new"}, scope="user", subject="u1")
    assert now()["channel"] == "#new"
    database.run(lambda session: store.delete(session, caller(), found, made["configId"], None))
    with pytest.raises(Invalid):
        now()


def test_a_warm_process_resolves_without_a_statement(database: DatabaseService, plugin_id: str) -> None:
    from sqlalchemy import event

    add(database, plugin_id, FULL)
    cache = warm_cache(database)
    found = catalog.find(cache, caller(), plugin_id)
    resolution.resolve(database, cache, found, app_id=OWNER, subject=None, config_id=None)
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert (
        resolution.resolve(database, cache, found, app_id=OWNER, subject=None, config_id=None)["token"]
        == "s3cret"
    )
    assert statements == []


# -- writing -------------------------------------------------------------------------------------------------------


def test_secrets_are_ciphertext_in_the_database_and_masked_on_the_way_out(
    database: DatabaseService, plugin_id: str
) -> None:
    shown = add(database, plugin_id, FULL)
    assert shown["configItems"] == {"url": "https://a.example", "token": "***"}
    for model in (PluginConfig, AuditLog, PluginHistory):
        for row in rows(database, model):
            assert "s3cret" not in json.dumps({key: str(value) for key, value in vars(row).items()})


def test_values_are_checked_against_the_schema_but_for_what_is_absent(
    database: DatabaseService, plugin_id: str
) -> None:
    add(database, plugin_id, {})
    with pytest.raises(Invalid) as raised:
        add(database, plugin_id, {"token": "ab", "channel": "much too long", "no": 1}, name="bad")
    assert raised.value.code == "config.invalid"
    assert {(problem.pointer, problem.rule) for problem in raised.value.errors} == {
        ("/configItems/token", "schema.minLength"),
        ("/configItems/channel", "schema.maxLength"),
        ("/configItems/no", "schema.additionalProperties"),
    }
    assert "ab" not in {problem.message for problem in raised.value.errors}
    assert len(rows(database, PluginConfig)) == 1


def test_a_kept_secret_is_checked_like_any_other(database: DatabaseService, plugin_id: str) -> None:
    made = add(database, plugin_id, FULL)
    stricter = {
        **SCHEMA,
        "properties": {**SCHEMA["properties"], "token": {"format": "password", "minLength": 20}},
    }
    set_schema(database, plugin_id, stricter)
    with pytest.raises(Invalid) as raised:
        change(database, plugin_id, made["configId"], {"url": "x", "token": "***"})
    assert [problem.pointer for problem in raised.value.errors] == ["/configItems/token"]


def set_schema(database: DatabaseService, plugin_id: str, schema: Any) -> None:
    def work(session: Any) -> None:
        session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id)).one().config_schema = schema

    database.run(work)


def test_one_default_for_each_scope(database: DatabaseService, plugin_id: str) -> None:
    first = add(database, plugin_id, FULL)
    other_user = add(database, plugin_id, FULL, scope="user", subject="u2")
    second = add(database, plugin_id, {**FULL, "url": "second"}, name="second")
    assert (first["isDefault"], other_user["isDefault"], second["isDefault"]) == (True, True, False)

    change(database, plugin_id, second["configId"], {**FULL, "url": "second"}, is_default=True)
    defaults = {row.config_id for row in rows(database, PluginConfig) if row.is_default}
    assert defaults == {second["configId"], other_user["configId"]}
    assert in_force(database, plugin_id)["url"] == "second"

    change(database, plugin_id, second["configId"], FULL, is_default=False)
    with pytest.raises(Invalid):
        in_force(database, plugin_id)


def test_a_name_is_taken_once_in_its_scope(database: DatabaseService, plugin_id: str) -> None:
    first = add(database, plugin_id, FULL)
    with pytest.raises(Conflict) as raised:
        add(database, plugin_id, FULL)
    assert (raised.value.code, raised.value.extensions) == (
        "config.name_taken",
        {"configId": first["configId"]},
    )
    add(database, plugin_id, FULL, who=caller(OTHER))
    add(database, plugin_id, FULL, scope="user", subject="u1")
    second = add(database, plugin_id, FULL, name="second")
    with pytest.raises(Conflict):
        change(database, plugin_id, second["configId"], FULL, name="main")
    assert change(database, plugin_id, second["configId"], FULL, name="third")["name"] == "third"


@pytest.mark.parametrize(
    ("who", "code"), [(caller(OTHER), "plugin.not_owner"), (caller(role="publisher"), "auth.role")]
)
def test_only_the_owners_admins_write_global_configs(
    database: DatabaseService, plugin_id: str, who: Caller, code: str
) -> None:
    made = add(database, plugin_id, FULL, scope="global")
    found = catalog.find(warm_cache(database), who, plugin_id)
    with pytest.raises(Forbidden) as raised:
        add(database, plugin_id, FULL, who=who, scope="global", name="second")
    assert raised.value.code == code
    with pytest.raises(Forbidden):
        change(database, plugin_id, made["configId"], FULL, who=who)
    with pytest.raises(Forbidden):
        database.run(lambda session: store.delete(session, who, found, made["configId"], None))


def test_other_tenants_neither_see_nor_touch_a_config(database: DatabaseService, plugin_id: str) -> None:
    made = add(database, plugin_id, FULL)
    who = caller(OTHER)
    found = catalog.find(warm_cache(database), who, plugin_id)
    with pytest.raises(NotFound):
        change(database, plugin_id, made["configId"], FULL, who=who)
    with pytest.raises(NotFound):
        database.run(lambda session: store.delete(session, who, found, made["configId"], None))
    with database.reads() as session, pytest.raises(NotFound):
        store.read(session, who, found, made["configId"])


def test_writes_are_audited_and_the_owners_are_in_the_plugins_history(
    database: DatabaseService, plugin_id: str
) -> None:
    made = add(database, plugin_id, FULL)
    change(database, plugin_id, made["configId"], {**FULL, "url": "b"})
    found = catalog.find(warm_cache(database), caller(), plugin_id)
    database.run(lambda session: store.delete(session, caller(), found, made["configId"], None))
    add(database, plugin_id, FULL, who=caller(OTHER))
    audited = sorted(rows(database, AuditLog), key=lambda row: row.id)
    assert [(row.app_id, row.action, row.object_id) for row in audited[:3]] == [
        (OWNER, f"config.{verb}", made["configId"]) for verb in ("create", "update", "delete")
    ]
    assert audited[3].app_id == OTHER
    assert [(row.action, row.version) for row in rows(database, PluginHistory)] == [("config", "1.0.0")] * 3


# -- writers at once -----------------------------------------------------------------------------------------------


def test_a_draft_for_another_schema_is_refused(database: DatabaseService, plugin_id: str) -> None:
    made = add(database, plugin_id, FULL)
    draft = drafted(database, plugin_id, made["configId"], FULL)
    set_schema(database, plugin_id, {"properties": {"url": {"writeOnly": True}}})
    with pytest.raises(Conflict) as raised:
        database.run(lambda session: store.replace(session, caller(), draft, None))
    assert raised.value.code == "plugin.changed"


def test_a_mask_does_not_bring_back_a_secret_that_another_writer_replaced(
    database: DatabaseService, plugin_id: str
) -> None:
    made = add(database, plugin_id, FULL)
    draft = drafted(database, plugin_id, made["configId"], {"url": "b", "token": "***"})
    change(database, plugin_id, made["configId"], {**FULL, "token": "rotated"})
    with pytest.raises(Conflict) as raised:
        database.run(lambda session: store.replace(session, caller(), draft, None))
    assert raised.value.code == "config.changed"
    assert in_force(database, plugin_id)["token"] == "rotated"


def test_a_config_write_waits_for_an_update_of_its_plugin(database: DatabaseService, plugin_id: str) -> None:
    made = add(database, plugin_id, FULL)
    draft = drafted(database, plugin_id, made["configId"], FULL)
    updating, told = threading.Event(), threading.Event()
    outcome: list[str] = []

    def write() -> None:
        updating.wait(10)
        own = DatabaseService(database.database_url)
        try:
            told.set()
            own.run(lambda session: store.replace(session, caller(), draft, None))
            outcome.append("written")
        except Conflict as error:
            outcome.append(error.code)
        finally:
            own.close()

    writer = threading.Thread(target=write)
    writer.start()
    with database.session_getter() as session:
        session.scalars(select(Plugin).where(Plugin.plugin_id == plugin_id).with_for_update()).one()
        session.execute(
            update(Plugin)
            .where(Plugin.plugin_id == plugin_id)
            .values(config_schema={"additionalProperties": False})
        )
        updating.set()
        told.wait(10)
        writer.join(0.3)
        assert outcome == []
    writer.join(20)
    assert outcome == ["plugin.changed"]


def test_of_two_writers_that_want_to_be_the_default_one_is(database: DatabaseService, plugin_id: str) -> None:
    drafts = []
    for name in ("a", "b", "c", "d"):
        cache = warm_cache(database)
        found = catalog.find(cache, caller(), plugin_id)
        draft = store.draft_new(
            database,
            cache,
            caller(),
            found,
            scope="app",
            subject=None,
            name=name,
            values=FULL,
            is_default=True,
        )
        drafts.append(draft)
    start = threading.Barrier(len(drafts))

    def write(draft: store.Draft) -> None:
        own = DatabaseService(database.database_url)
        start.wait(10)
        own.run(lambda session: store.create(session, caller(), draft))
        own.close()

    threads = [threading.Thread(target=write, args=[draft]) for draft in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    stored = rows(database, PluginConfig)
    assert (len(stored), sum(row.is_default for row in stored)) == (4, 1)


# -- when the version changes --------------------------------------------------------------------------------------


def against(database: DatabaseService, plugin_id: str, schema: Any) -> list[tuple[str, str]]:
    with database.reads() as session:
        found = validation.violations_against(session, plugin_id, schema)
    return [(problem.pointer.partition("/configs/")[2].partition("/")[2], problem.rule) for problem in found]


def test_stored_configs_against_a_new_schema(database: DatabaseService, plugin_id: str) -> None:
    add(database, plugin_id, FULL)
    assert against(database, plugin_id, SCHEMA) == []
    assert against(database, plugin_id, None) == []
    assert against(database, plugin_id, {"properties": {"url": {"type": "integer"}}}) == [
        ("url", "schema.type")
    ]
    assert against(database, plugin_id, {"properties": {"token": {"type": "integer"}}}) == [
        ("token", "schema.type")
    ]
    # What only the plain text could tell is left to the check before an execution.
    assert against(database, plugin_id, {"properties": {"token": {"minLength": 99, "pattern": "^x"}}}) == []
    assert against(database, plugin_id, {"oneOf": [{"properties": {"token": {"const": "x"}}}]}) == []
    assert against(database, plugin_id, {"required": ["new"]}) == []


def test_a_snapshot_restores_values_but_neither_deleted_configs_nor_removes_new_ones(
    database: DatabaseService, plugin_id: str
) -> None:
    kept = add(database, plugin_id, FULL)
    deleted = add(database, plugin_id, FULL, scope="user", subject="u1")
    with database.reads() as session:
        snapshot = json.loads(json.dumps(snapshots.take(session, plugin_id)))
    assert "s3cret" not in json.dumps(snapshot)
    change(database, plugin_id, kept["configId"], {"url": "later", "token": "later"})
    found = catalog.find(warm_cache(database), caller(), plugin_id)
    database.run(lambda session: store.delete(session, caller(), found, deleted["configId"], None))
    new = add(database, plugin_id, {"url": "new"}, scope="user", subject="u2")

    database.run(lambda session: snapshots.restore(session, plugin_id, snapshot))

    assert in_force(database, plugin_id) == {**FULL, "channel": "#default"}
    assert {row.config_id for row in rows(database, PluginConfig)} == {kept["configId"], new["configId"]}


# -- over HTTP -----------------------------------------------------------------------------------------------------


@pytest.fixture
def deployment(database_url: str, key_file: str, with_schema: None) -> Iterator[Deployment]:
    with deployed(database_url, HOTPLUG_KEY_FILE=key_file) as made:
        yield made


@pytest.fixture
def path(deployment: Deployment) -> str:
    return configs_path(deployment)


def configs_path(deployment: Deployment) -> str:
    app_id = int(deployment.client.get("/api/v1/me").json["appId"])
    return f"/api/v1/plugins/{put_plugin(process.database(), app_id=app_id, configSchema=SCHEMA)}/configs"


def test_a_config_is_created_listed_changed_and_deleted(deployment: Deployment, path: str) -> None:
    client = deployment.client
    made = client.post(path, {"name": "main", "configItems": FULL})
    assert (made.status, made.headers["location"]) == (201, f"{path}/{made.json['configId']}")
    one = made.headers["location"]
    assert client.get(one).json == made.json
    assert client.get(one).headers["etag"] == made.headers["etag"]

    client.post(path, {"name": "main", "scope": "user", "subject": "u1", "configItems": {}})
    assert [item["subject"] for item in client.get(f"{path}?limit=1").json["items"]] == ["u1"]
    assert [item["scope"] for item in client.get(f"{path}?scope=app").json["items"]] == ["app"]
    assert len(client.get(f"{path}?subject=u1").json["items"]) == 1
    assert client.get(f"{path}?subject=u2").json["items"] == []

    put = client.put(one, {"configItems": {"token": "***"}}, headers={"If-Match": made.headers["etag"]})
    assert (put.status, put.json["configItems"]) == (200, {"token": "***"})
    stale = client.put(one, {"configItems": {}}, headers={"If-Match": made.headers["etag"]})
    assert stale.status == 412
    assert client.delete(one, headers={"If-Match": made.headers["etag"]}).status == 412
    assert client.delete(one, headers={"If-Match": put.headers["etag"]}).status == 204
    assert client.get(one).status == 404


def test_a_new_secret_alone_changes_the_entity_tag(deployment: Deployment, path: str) -> None:
    made = deployment.client.post(path, {"name": "main", "configItems": FULL})
    put = deployment.client.put(made.headers["location"], {"configItems": {**FULL, "token": "other"}})
    assert put.headers["etag"] != made.headers["etag"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"configItems": {}}, [""]),
        ({"name": "two words", "configItems": []}, ["/configItems", "/name"]),
        ({"name": "x", "scope": "user", "configItems": {}}, ["/subject"]),
        ({"name": "x", "subject": "u1", "configItems": {}}, ["/subject"]),
        ({"name": "x", "scope": "user", "subject": "u1 ", "configItems": {}}, ["/subject"]),
        (
            {"name": "x", "configItems": {"url": 1, "channel": 2}},
            ["/configItems/channel", "/configItems/url"],
        ),
    ],
)
def test_a_bad_config_is_422_with_every_pointer(
    deployment: Deployment, path: str, body: dict[str, Any], pointers: list[str]
) -> None:
    refused: Response = deployment.client.post(path, body)
    assert refused.status == 422
    assert sorted(error["pointer"] for error in refused.json["errors"]) == pointers
    assert rows(process.database(), PluginConfig) == []


def test_one_idempotency_key_makes_one_config(deployment: Deployment, path: str) -> None:
    key = {"Idempotency-Key": "k1"}
    first = deployment.client.post(path, {"name": "main", "configItems": FULL}, headers=key)
    again = deployment.client.post(path, {"name": "main", "configItems": FULL}, headers=key)
    assert (first.status, again.status, again.json) == (201, 201, first.json)
    assert again.headers["location"] == first.headers["location"]
    assert len(rows(process.database(), PluginConfig)) == 1


@pytest.mark.usefixtures("with_schema")
def test_without_a_master_key_secrets_are_refused_and_other_values_taken(database_url: str) -> None:
    with deployed(database_url, HOTPLUG_KEY_FILE="") as made:
        path = configs_path(made)
        refused = made.client.post(path, {"name": "main", "configItems": FULL})
        assert (refused.status, refused.json["code"]) == (503, "secrets.no_key")
        assert made.client.post(path, {"name": "main", "configItems": {"url": "x"}}).status == 201
