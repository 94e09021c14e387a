"""What happens to a plugin over the API once it is installed, and what every reader then sees."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import delete, update

from chalicelib.core import process
from chalicelib.core.audit import AuditLog
from chalicelib.core.functions import away, timed_out
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.install_models import PluginRemoval
from chalicelib.plugins.models import Plugin, PluginHistory, PluginVersion
from tests.integration.plugin_world import (
    INSTALLS,
    PLUGINS,
    World,
    declared,
    load_failure,
    package,
    wasm_package,
    world,
)


@pytest.fixture
def here(sqlite_url: str) -> Iterator[World]:
    with world(sqlite_url) as made:
        yield made


def versions(here: World, *numbers: str, enabled: bool = False, **members: Any) -> str:
    """Install a plugin and bring it through these versions; return its id."""
    first, *others = numbers
    plugin_id = (here.enabled if enabled else here.installed)(version=first, **members)
    for number in others:
        assert here.update(plugin_id, package(version=number, **members)).status == 200
    return plugin_id


# -- the whole life, as another warm function sees it -------------------------------------------------------------


@pytest.mark.usefixtures("with_schema")
def test_every_change_is_seen_by_another_warm_function(database_url: str) -> None:
    with world(database_url) as here:
        plugin_id, path = here.installed(), ""
        path = f"{PLUGINS}/{plugin_id}"
        assert here.seen(plugin_id) == "1.0.0 disabled"
        changes: list[tuple[Any, str | None]] = [
            (lambda: here.act(plugin_id, "enable"), "1.0.0 enabled"),
            (lambda: here.update(plugin_id, package(version="2.0.0")), "2.0.0 enabled"),
            (lambda: here.act(plugin_id, "rollback"), "1.0.0 enabled"),
            (lambda: here.client.patch(path, {"visibility": "shared"}), "1.0.0 enabled"),
            (lambda: here.client.put(f"{path}/grants", {"network": ["a.example.com"]}), "1.0.0 enabled"),
            (lambda: here.act(plugin_id, "disable"), "1.0.0 disabled"),
            (lambda: here.client.delete(path), None),
        ]
        for change, seen in changes:
            with here.bumps(plugin_id):
                assert change().status in (200, 204)
            assert here.seen(plugin_id) == seen
        admin = int(here.rows(AuditLog)[-1].credential_id)
        assert here.history(plugin_id) == [
            ("install", "1.0.0", None, "done"),
            ("enable", "1.0.0", None, "done"),
            ("update", "2.0.0", "1.0.0", "done"),
            ("rollback", "1.0.0", "2.0.0", "done"),
            ("share", "1.0.0", None, "done"),
            ("grant", "1.0.0", None, "done"),
            ("disable", "1.0.0", None, "done"),
            ("uninstall", "1.0.0", None, "done"),
        ]
        assert {row.credential_id for row in here.rows(PluginHistory)} == {admin}
        actions = ["install", "enable", "update", "rollback", "share", "grant", "disable", "uninstall"]
        assert here.audited() == [(f"plugin.{action}", plugin_id) for action in actions]
        digests = [(row.before_digest, row.after_digest) for row in here.rows(AuditLog, object_id=plugin_id)]
        # What one change left is what the next one found.
        assert [before for before, _ in digests[1:]] == [after for _, after in digests[:-1]]


def test_history_names_who_and_the_request(here: World) -> None:
    publisher = here.publisher()
    plugin_id = here.installed(client=publisher)
    me = publisher.get("/api/v1/me").json
    done = here.act(plugin_id, "enable", publisher)
    [enabled, installed] = here.get(plugin_id, "/history", publisher)["items"]
    assert enabled["requestId"] == done.headers["x-request-id"] != installed["requestId"]
    assert enabled["credentialId"] == installed["credentialId"] == me["credentialId"]
    assert (enabled["action"], enabled["outcome"], enabled["detail"]) == ("enable", "done", "")
    assert enabled["at"] >= installed["at"]


# -- enable and disable -------------------------------------------------------------------------------------------


def test_enabling_loads_once_and_twice_is_once(here: World) -> None:
    plugin_id = here.enabled(defaultConfig={"url": "x"})
    [load] = here.loads()
    assert (load["operation"], load["config"]) == ("load", {"url": "x"})
    assert load["plugin"]["pluginId"] == plugin_id
    before = here.everything()
    again = here.act(plugin_id, "enable")
    assert (again.status, again.json["status"]) == (200, "enabled")
    assert (here.everything(), len(here.loads())) == (before, 1)
    here.act(plugin_id, "disable")
    before = here.everything()
    assert here.act(plugin_id, "disable").json["status"] == "disabled"
    assert here.everything() == before
    # Files and versions stay.
    assert len(here.objects()) == 1


def test_what_nothing_executes_is_enabled_without_a_load(here: World) -> None:
    here.enabled(entryPoint="plugin.so", code=b"\x7fELF")
    assert here.loads() == []


def test_wasm_is_loaded_from_its_compiled_module(here: World) -> None:
    opened = here.install(wasm_package()).json
    here.arrived(f"incoming/tasks/{opened['installId']}.zip")
    plugin_id = here.task(opened["installId"])["pluginId"]
    assert here.act(plugin_id, "enable").status == 200
    [version] = here.rows(PluginVersion)
    compiled = here.loads()[0]["compiled"]
    assert (compiled["checksum"], compiled["engine"]) == (version.compiled_sha256, version.compiled_engine)
    assert f"{version.compiled_path}?versionId={version.compiled_version}" in compiled["url"]


def test_a_plugin_that_does_not_load_says_so_until_it_does(here: World) -> None:
    plugin_id = here.installed()
    here.replies.append(load_failure("SyntaxError: line 3") | {"logs": "plugin.py, line 3\n"})
    with here.bumps(plugin_id):
        refused = here.act(plugin_id, "enable")
    assert (refused.status, refused.json["code"]) == (422, "plugin.load_failed")
    assert [(one["pointer"], one["message"]) for one in refused.json["errors"]] == [
        ("/entryPoint", "SyntaxError: line 3")
    ]
    assert refused.json["logs"] == "plugin.py, line 3\n"
    found = here.get(plugin_id)
    assert (found["isEnabled"], found["status"]) == (2, "error")
    assert found["registerError"] == "SyntaxError: line 3"
    assert here.seen(plugin_id) == "1.0.0 error"
    failed = here.get(plugin_id, "/history")["items"][0]
    assert (failed["action"], failed["outcome"], failed["detail"]) == (
        "enable",
        "failed",
        "SyntaxError: line 3",
    )
    assert here.audited()[-1] == ("plugin.load_failed", plugin_id)
    done = here.act(plugin_id, "enable")
    assert (done.json["status"], done.json["registerError"]) == ("enabled", None)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (timed_out(), 504),
        (away(), 503),
        ({"ok": False, "error": {"kind": "internal", "code": "runtime.failed"}}, 502),
    ],
)
def test_a_runtime_that_cannot_be_asked_is_not_the_plugins_fault(
    here: World, reply: Any, status: int
) -> None:
    plugin_id = here.installed()
    before = here.everything()
    here.replies.append(reply)
    assert here.act(plugin_id, "enable").status == status
    assert here.everything() == before


@pytest.mark.parametrize(
    ("reply", "code"), [({"ok": True}, "plugin.changed"), (load_failure(), "plugin.load_failed")]
)
def test_a_plugin_that_changes_while_it_loads_is_neither_enabled_nor_blamed(
    here: World, reply: dict[str, Any], code: str
) -> None:
    plugin_id = here.installed()

    def updated_meanwhile(event: dict[str, Any]) -> dict[str, Any]:
        assert here.update(plugin_id, package(version="2.0.0")).status == 200
        return reply

    here.replies.append(updated_meanwhile)
    assert here.act(plugin_id, "enable").json["code"] == code
    assert here.seen(plugin_id) == "2.0.0 disabled"


def test_a_load_that_fails_for_a_stale_client_does_not_make_the_plugin_broken(here: World) -> None:
    plugin_id = here.installed()
    before = here.everything()
    here.replies.append(load_failure())
    assert here.act(plugin_id, "enable", headers={"If-Match": '"0"'}).status == 412
    assert (here.everything(), here.loads()) == (before, [])


def test_one_key_enables_once(here: World) -> None:
    plugin_id = here.installed()
    key = {"Idempotency-Key": "k"}
    here.replies.append(load_failure())
    assert here.act(plugin_id, "enable", headers=key).status == 422
    assert here.act(plugin_id, "enable", headers=key).status == 200
    here.act(plugin_id, "disable")
    replayed = here.act(plugin_id, "enable", headers=key)
    assert (replayed.status, replayed.json["status"]) == (200, "enabled")
    assert here.get(plugin_id)["status"] == "disabled"


# -- If-Match, roles, tenants -------------------------------------------------------------------------------------

ACTIONS: dict[str, tuple[str, str, Any]] = {
    "enable": ("POST", "/enable", ...),
    "disable": ("POST", "/disable", ...),
    "rollback": ("POST", "/rollback", {}),
    "share": ("PATCH", "", {"visibility": "private"}),
    "grant": ("PUT", "/grants", {"network": []}),
    "uninstall": ("DELETE", "", ...),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_stale_client_changes_nothing(here: World, action: str) -> None:
    method, more, body = ACTIONS[action]
    plugin_id = versions(here, "1.0.0", "2.0.0", enabled=action != "enable")
    if action == "share":
        here.client.patch(f"{PLUGINS}/{plugin_id}", {"visibility": "shared"})
    if action == "grant":
        here.client.put(f"{PLUGINS}/{plugin_id}/grants", {"network": ["a.example.com"]})
    path = f"{PLUGINS}/{plugin_id}"
    before = here.everything()
    stale = here.client.request(method, path + more, json=body, headers={"If-Match": '"0"'})
    assert stale.status == 412
    assert here.everything() == before
    tag = here.client.get(path).headers["etag"]
    assert stale.json["etag"] == tag
    done = here.client.request(method, path + more, json=body, headers={"If-Match": f'"0", {tag}'})
    assert done.status in (200, 204)
    assert here.everything() != before


@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_else_changes_a_plugin(here: World, action: str) -> None:
    method, more, body = ACTIONS[action]
    plugin_id = versions(here, "1.0.0", "2.0.0")
    path = f"{PLUGINS}/{plugin_id}"
    stranger, lowly = here.publisher("stranger", "admin"), here.publisher("admin", "caller")
    before = here.everything()
    hidden = stranger.request(method, path + more, json=body)
    assert (hidden.status, hidden.json["code"]) == (404, "plugin.not_found")
    assert here.everything() == before
    here.client.patch(path, {"visibility": "shared"})
    before = here.everything()
    shown = stranger.request(method, path + more, json=body)
    assert (shown.status, shown.json["code"]) == (403, "plugin.not_owner")
    refused = lowly.request(method, path + more, json=body)
    assert (refused.status, refused.json["code"]) == (403, "auth.role")
    assert here.everything() == before


# -- sharing and grants -------------------------------------------------------------------------------------------


def test_sharing_needs_an_admin_and_taking_back_does_not(here: World) -> None:
    publisher, stranger = here.publisher(), here.publisher("stranger")
    plugin_id = here.installed(client=publisher)
    path = f"{PLUGINS}/{plugin_id}"
    refused = publisher.patch(path, {"visibility": "shared"})
    assert (refused.status, refused.json["code"]) == (403, "auth.role")
    assert stranger.get(path).status == 404
    admin = here.publisher(role="admin")
    assert admin.patch(path, {"visibility": "shared"}).json["visibility"] == "shared"
    assert stranger.get(path).json["visibility"] == "shared"
    before = here.everything()
    assert admin.patch(path, {"visibility": "shared"}).status == 200
    assert here.everything() == before
    assert publisher.patch(path, {"visibility": "private"}).status == 200
    assert stranger.get(path).status == 404


ASKS = {"network": ["a.example.com", "b.example.com:8443"]}


def test_what_asks_for_the_network_is_enabled_once_it_is_granted(here: World) -> None:
    plugin_id = here.installed(permissions=ASKS)
    assert here.get(plugin_id)["permissions"] == ASKS
    before = here.everything()
    refused = here.act(plugin_id, "enable")
    assert (refused.status, refused.json["code"]) == (403, "plugin.grant_needed")
    assert len(refused.json["errors"]) == 2
    assert (here.everything(), here.loads()) == (before, [])
    granted = here.client.put(f"{PLUGINS}/{plugin_id}/grants", ASKS)
    assert (granted.json["grants"], granted.json["status"]) == (ASKS, "disabled")
    assert here.act(plugin_id, "enable").status == 200
    assert here.functions.invocations[-1].name == "runtime_network"
    less = here.client.put(f"{PLUGINS}/{plugin_id}/grants", {"network": ["a.example.com"]})
    assert (less.status, less.json["status"]) == (200, "disabled")
    assert here.registration(plugin_id).granted_hosts == ("a.example.com",)


def test_a_grant_that_stands_ready_gives_an_earlier_version_nothing(here: World) -> None:
    plugin_id = here.installed()
    here.client.put(f"{PLUGINS}/{plugin_id}/grants", ASKS)
    here.act(plugin_id, "enable")
    call = here.functions.invocations[-1]
    assert (call.name, call.payload["plugin"]["network"]) == ("runtime", [])
    # Taking back what the active version does not ask for disables nothing.
    less = here.client.put(f"{PLUGINS}/{plugin_id}/grants", {"network": []})
    assert less.json["status"] == "enabled"


# -- rollback -----------------------------------------------------------------------------------------------------


def test_back_and_forth(here: World) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0", enabled=True)
    objects = here.objects()
    for expected in ("1.0.0", "2.0.0", "1.0.0"):
        done = here.act(plugin_id, "rollback")
        assert (done.status, done.json["version"], done.json["status"]) == (200, expected, "enabled")
        assert done.json["checksum"] == here.get(plugin_id, f"/versions/{expected}")["checksum"]
        assert here.loads()[-1]["plugin"]["version"] == expected
    assert here.objects() == objects


def test_to_a_named_version(here: World) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0", "3.0.0")
    done = here.act(plugin_id, "rollback", json={"version": "1.0.0"})
    assert (done.json["version"], done.json["manifest"]["version"]) == ("1.0.0", "1.0.0")
    # A disabled plugin is not loaded.
    assert here.loads() == []
    assert here.act(plugin_id, "rollback").json["version"] == "3.0.0"
    # The one before is the one that it was last come from, not the first.
    assert here.act(plugin_id, "rollback", json={"version": "2.0.0"}).status == 200
    assert here.act(plugin_id, "rollback", json={"version": "1.0.0"}).status == 200
    assert here.act(plugin_id, "rollback").json["version"] == "2.0.0"


def test_a_rollback_that_leads_nowhere_changes_nothing(here: World) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0", "3.0.0")
    only = here.installed("single")
    with process.database().session_getter() as session:
        session.execute(delete(PluginVersion).where(PluginVersion.version == "2.0.0"))
    before = here.everything()
    for target, body, code, detail in (
        (only, {}, "plugin.no_such_version", "There is no earlier version to go back to."),
        (
            plugin_id,
            {"version": "9.9.9"},
            "plugin.no_such_version",
            "There is no version 9.9.9 to go back to.",
        ),
        (plugin_id, {"version": "3.0.0"}, "plugin.version_active", "3.0.0 is the active version."),
        # Retention took it away: neither by its name nor as the one before.
        (
            plugin_id,
            {"version": "2.0.0"},
            "plugin.no_such_version",
            "There is no version 2.0.0 to go back to.",
        ),
        (plugin_id, {}, "plugin.no_such_version", "There is no version 2.0.0 to go back to."),
    ):
        refused = here.act(target, "rollback", json=body)
        assert (refused.status, refused.json["code"], refused.json["detail"]) == (409, code, detail)
    assert here.act(plugin_id, "rollback", json={"version": ".."}).status == 422
    assert here.everything() == before


@pytest.mark.parametrize("damage", ["gone", "other bytes", "longer", "no checksum", "away"])
def test_a_stored_object_that_is_damaged_is_never_activated(here: World, damage: str) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0", enabled=True)
    [old] = here.rows(PluginVersion, version="1.0.0")
    content = {"other bytes": package(version="1.0.1"), "longer": bytes(10_000), "no checksum": package()}
    if damage == "gone":
        here.bucket.delete(old.s3_path, old.s3_version)
    elif damage in content:
        put = here.bucket.put(old.s3_path, content[damage])
        with process.database().session_getter() as session:
            session.execute(update(PluginVersion).where(PluginVersion.id == old.id).values(s3_version=put))
    here.bucket.is_away = damage == "away"
    before, loads = here.rows(Plugin)[0].generation, len(here.loads())
    done = here.act(plugin_id, "rollback")
    expected = {"no checksum": (200, None), "away": (503, "storage.away")}
    assert (done.status, done.json.get("code")) == expected.get(damage, (409, "plugin.artifact_damaged"))
    if damage != "no checksum":
        assert (here.rows(Plugin)[0].generation, len(here.loads())) == (before, loads)
        assert here.get(plugin_id)["version"] == "2.0.0"


def test_a_version_that_does_not_load_any_more_is_not_gone_back_to(here: World) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0", enabled=True)
    before = here.everything()
    here.replies.append(load_failure())
    refused = here.act(plugin_id, "rollback")
    assert (refused.status, refused.json["code"]) == (422, "plugin.load_failed")
    assert here.everything() == before
    assert here.seen(plugin_id) == "2.0.0 enabled"


def test_a_rollback_needs_the_grants_of_the_version_it_goes_back_to(here: World) -> None:
    plugin_id = here.installed(permissions=ASKS)
    here.client.put(f"{PLUGINS}/{plugin_id}/grants", ASKS)
    here.act(plugin_id, "enable")
    here.update(plugin_id, package(version="2.0.0"))
    assert here.client.put(f"{PLUGINS}/{plugin_id}/grants", {"network": []}).json["status"] == "enabled"
    before = here.everything()
    refused = here.act(plugin_id, "rollback")
    assert (refused.status, refused.json["code"]) == (403, "plugin.grant_needed")
    assert here.everything() == before


def test_a_plugin_that_changes_while_it_is_rolled_back_stays_as_it_is(here: World) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0", enabled=True)

    def disabled_meanwhile(event: dict[str, Any]) -> dict[str, Any]:
        here.act(plugin_id, "disable")
        return {"ok": True}

    here.replies.append(disabled_meanwhile)
    refused = here.act(plugin_id, "rollback")
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (
        409,
        "plugin.changed",
        "1",
    )
    assert here.seen(plugin_id) == "2.0.0 disabled"


OLD = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}
NEW = {"type": "object", "properties": {"url": {}, "host": {"type": "string"}}, "required": ["host"]}


@pytest.mark.parametrize("enabled", [False, True])
def test_a_rollback_across_schemas_restores_the_config_of_then(here: World, enabled: bool) -> None:
    plugin_id = here.installed(configSchema=OLD)
    made = here.act(plugin_id, "configs", json={"name": "main", "configItems": {"url": "x"}}).json
    config = f"{PLUGINS}/{plugin_id}/configs/{made['configId']}"
    if enabled:
        here.act(plugin_id, "enable")
    both = package(version="2.0.0", configSchema=NEW, defaultConfig={"host": "h"})
    assert here.update(plugin_id, both).status == 200
    assert here.client.put(config, {"configItems": {"host": "y"}}).status == 200
    done = here.act(plugin_id, "rollback")
    assert (done.status, done.json["version"]) == (200, "1.0.0")
    assert here.client.get(config).json["configItems"] == {"url": "x"}
    if enabled:
        # It was loaded with what it will run with.
        assert here.loads()[-1]["config"] == {"url": "x"}
    # And forward again, the other way round.
    assert here.act(plugin_id, "rollback").json["version"] == "2.0.0"
    assert here.client.get(config).json["configItems"] == {"host": "y"}


def test_a_rollback_within_one_schema_keeps_the_config_of_now(here: World) -> None:
    plugin_id = here.installed(configSchema=OLD)
    made = here.act(plugin_id, "configs", json={"name": "main", "configItems": {"url": "x"}}).json
    config = f"{PLUGINS}/{plugin_id}/configs/{made['configId']}"
    here.update(plugin_id, package(version="2.0.0", configSchema=OLD))
    here.client.put(config, {"configItems": {"url": "z"}})
    here.act(plugin_id, "rollback")
    assert here.client.get(config).json["configItems"] == {"url": "z"}


# -- uninstall ----------------------------------------------------------------------------------------------------


def test_an_uninstalled_plugin_is_gone_for_every_reader_at_once(here: World) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0", enabled=True)
    here.act(plugin_id, "configs", json={"name": "main", "configItems": {}})
    path = f"{PLUGINS}/{plugin_id}"
    assert here.seen(plugin_id) == "2.0.0 enabled"
    done = here.client.delete(path)
    assert (done.status, done.body) == (204, "")
    assert here.seen(plugin_id) is None
    for more in ("", "/versions", "/versions/1.0.0", "/history", "/download", "/configs", "/executions"):
        found = here.client.get(path + more)
        assert (found.status, found.json["code"]) == (404, "plugin.not_found")
    for action in ("enable", "disable", "rollback", "execute"):
        assert here.act(plugin_id, action).status == 404
    assert here.client.delete(path).status == 404
    assert here.client.get(PLUGINS).json["items"] == []
    # The rest is the sweep's: it is written down, and nothing of it is seen.
    assert [row.plugin_id for row in here.rows(PluginRemoval)] == [plugin_id]
    assert len(here.rows(PluginVersion)) == len(here.objects()) == 2
    assert len(here.rows(PluginConfig)) == 1


def test_an_app_owns_what_is_being_removed(here: World) -> None:
    publisher = here.publisher()
    plugin_id = here.installed(client=publisher)
    app = "/api/v1/apps/acme"
    assert here.client.delete(app).json["owns"] == ["plugins"]
    publisher.delete(f"{PLUGINS}/{plugin_id}")
    assert here.client.delete(app).json["owns"] == ["plugins being removed"]
    publisher.post(f"{PLUGINS}/install", declared(package()))
    assert here.client.delete(app).json["owns"] == ["installs", "plugins being removed"]


# -- reading ------------------------------------------------------------------------------------------------------


def test_a_download_is_a_link_to_exactly_the_registered_bytes(here: World) -> None:
    plugin_id = versions(here, "1.0.0", "2.0.0")
    caller = here.publisher("admin", "caller")
    for query, number in (("", "2.0.0"), ("?version=1.0.0", "1.0.0"), ("?version=2.0.0", "2.0.0")):
        done = caller.get(f"{PLUGINS}/{plugin_id}/download{query}")
        [row] = here.rows(PluginVersion, version=number)
        assert done.status == 302
        link = f"https://storage.test/{row.s3_path}?versionId={row.s3_version}&expires=300"
        assert done.headers["location"] == f"{link}&filename={plugin_id}_{number}.zip"
        digest = base64.b64encode(bytes.fromhex(row.checksum)).decode()
        assert done.headers["repr-digest"] == f"sha-256=:{digest}:"
        assert done.headers["cache-control"] == "no-store"
    missing = caller.get(f"{PLUGINS}/{plugin_id}/download?version=3.0.0")
    assert (missing.status, missing.json["code"]) == (404, "plugin.version_not_found")
    assert here.client.get(f"{PLUGINS}/{plugin_id}/download", credential=None).status == 401
    assert here.publisher("admin", "viewer").get(f"{PLUGINS}/{plugin_id}/download").status == 403
    assert here.publisher("stranger").get(f"{PLUGINS}/{plugin_id}/download").status == 404


def test_versions_and_history_are_paged(here: World) -> None:
    numbers = [f"1.{minor}.0" for minor in range(5)]
    plugin_id = versions(here, *numbers)
    for more, key in (("versions", "version"), ("history", "version")):
        found, cursor = [], ""
        while cursor is not None:
            page = here.get(plugin_id, f"/{more}?limit=2{cursor and '&cursor=' + cursor}")
            assert len(page["items"]) <= 2
            found += [one[key] for one in page["items"]]
            cursor = page["nextCursor"]
        assert found == numbers[::-1]
    one = here.get(plugin_id, "/versions/1.2.0")
    assert (one["active"], one["runtime"], one["manifest"]["version"]) == (False, "python", "1.2.0")
    assert one["createdBy"] == here.client.get("/api/v1/me").json["credentialId"]
    missing = here.client.get(f"{PLUGINS}/{plugin_id}/versions/9.9.9")
    assert (missing.status, missing.json["code"]) == (404, "plugin.version_not_found")


@pytest.fixture
def shelf(here: World) -> dict[str, str]:
    """Some plugins to look for: name → id, oldest first."""
    stranger = here.publisher("stranger", "admin")
    made = {
        "alpha": here.enabled("alpha", pluginType="notify", description="100% Sure"),
        "beta-two": here.installed("beta-two", pluginType="cd", description="a\\b and 'quotes'"),
        "gamma_x": here.installed("gamma_x", pluginType="test", description="plain"),
        "gammaxx": here.installed("gammaxx", pluginType="test", description="100 Percent"),
        "theirs": here.installed("theirs", client=stranger, description="plain"),
        "public": here.installed("public", client=stranger, pluginType="custom", description="plain"),
    }
    stranger.patch(f"{PLUGINS}/{made['public']}", {"visibility": "shared"})
    return made


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["public", "gammaxx", "gamma_x", "beta-two", "alpha"]),
        ("pluginType=test", ["gammaxx", "gamma_x"]),
        ("pluginType=deploy", ["beta-two"]),
        ("status=1", ["alpha"]),
        ("status=0&pluginType=notify", []),
        ("source=local&pluginType=custom", ["public"]),
        ("source=market", []),
        ("q=GAMMA", ["gammaxx", "gamma_x"]),
        ("q=a_x", ["gamma_x"]),
        ("q=100%25", ["alpha"]),
        ("q=%25", ["alpha"]),
        ("q=_", ["gamma_x"]),
        ("q=a%5Cb", ["beta-two"]),
        ("q='quotes'", ["beta-two"]),
        ("q=plain", ["public", "gamma_x"]),
        ("q=sure", ["alpha"]),
        ("q=/", []),
        ("updatedSince=2999-01-01T00:00:00Z", []),
        ("updatedSince=2020-01-01t00:00:00.5z&q=alpha", ["alpha"]),
    ],
)
def test_a_list_is_what_was_asked_for(
    here: World, shelf: dict[str, str], query: str, names: list[str]
) -> None:
    found = here.client.get(f"{PLUGINS}?{query}")
    assert [one["name"] for one in found.json["items"]] == names


@pytest.mark.usefixtures("with_schema")
@pytest.mark.parametrize(
    "query", ["q=a_x", "q=100%25", "q=a%5Cb", "q=GAMMA&pluginType=test", "updatedSince=2020-01-01T00:00:00Z"]
)
def test_both_databases_find_the_same(mysql_url: str, sqlite_url: str, query: str) -> None:
    found = []
    for url in (mysql_url, sqlite_url):
        with world(url) as here:
            here.installed("gamma_x", pluginType="test", description="100% a\\b")
            here.installed("gammaxx", pluginType="test", description="100 Percent")
            items = here.client.get(f"{PLUGINS}?{query}").json["items"]
            found.append([one["name"] for one in items])
    assert found[0] == found[1] != []


def test_updated_since_is_the_time_of_the_latest_change(here: World, shelf: dict[str, str]) -> None:
    here.act(shelf["alpha"], "disable")
    changed = here.get(shelf["alpha"])["updateTime"]
    found = here.client.get(f"{PLUGINS}?updatedSince={changed}").json["items"]
    assert [one["name"] for one in found] == ["alpha"]
    later = quote(changed.replace("Z", "+00:00"))
    assert here.client.get(f"{PLUGINS}?updatedSince={later}").json["items"] == found


@pytest.mark.parametrize(
    "query",
    [
        "pluginType=ci", "status=3", "status=x", "source=", "q=", f"q={'a' * 65}", "order=name",
        "updatedSince=yesterday", "updatedSince=2026-01-01", "updatedSince=2026-01-01T00:00:00",
        "updatedSince=2026-02-30T00:00:00Z", "updatedSince=0001-01-01T00:00:00%2B23:59",
        "limit=0", "limit=1000", "cursor=x",
    ],
)  # fmt: skip
def test_a_filter_is_checked(here: World, query: str) -> None:
    refused = here.client.get(f"{PLUGINS}?{query}")
    assert refused.status == 400


def test_many_are_listed_page_by_page_each_once(here: World) -> None:
    made = [here.installed(f"plugin-{number:02d}") for number in range(23)]
    stranger = here.publisher("stranger", "admin")
    for plugin_id in made[::7]:
        here.client.patch(f"{PLUGINS}/{plugin_id}", {"visibility": "shared"})
    for client, expected in ((here.client, made[::-1]), (stranger, made[::7][::-1])):
        found, cursor = [], ""
        while cursor is not None:
            page = client.get(f"{PLUGINS}?limit=5{cursor and '&cursor=' + cursor}").json
            found += [one["pluginId"] for one in page["items"]]
            cursor = page["nextCursor"]
        assert found == expected
    first = here.client.get(f"{PLUGINS}?limit=5").json["nextCursor"]
    # A cursor belongs to its filter and to its caller.
    assert here.client.get(f"{PLUGINS}?limit=5&q=plugin&cursor={first}").status == 400
    assert stranger.get(f"{PLUGINS}?limit=5&cursor={first}").status == 400
    assert here.client.get(f"{INSTALLS}?cursor={first}").status == 400
