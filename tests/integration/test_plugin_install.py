"""Installing and updating over the API: every way in, every refusal, and nothing left behind by one."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.apps import service as apps
from chalicelib.core import process, steps
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import Conflict, Forbidden
from chalicelib.core.functions import timed_out
from chalicelib.plugins import installs
from chalicelib.plugins.install_models import PluginInstall, PluginTombstone
from chalicelib.plugins.models import Plugin, PluginVersion
from chalicelib.plugins.ownership import hold_owner, owned_by_app
from chalicelib.plugins.services import plugin_services
from tests.integration.plugin_world import (
    CODE,
    INSTALL,
    INSTALLS,
    LOCAL,
    PLUGINS,
    WASM,
    World,
    declared,
    load_failure,
    manifest,
    package,
    wasm_package,
    world,
)


@pytest.fixture
def here(sqlite_url: str) -> Iterator[World]:
    with world(sqlite_url) as made:
        yield made


# -- a package in the request ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_schema")
def test_another_warm_function_sees_an_install_and_an_update(database_url: str) -> None:
    with world(database_url) as here:
        plugin_id = here.installed()
        assert here.seen(plugin_id) == "1.0.0 disabled"
        with here.bumps(plugin_id):
            assert here.update(plugin_id, package(version="2.0.0")).status == 200
        assert here.seen(plugin_id) == "2.0.0 disabled"


@pytest.mark.parametrize(
    ("content", "runtime"),
    [
        (package(), "python"),
        (package(entryPoint="plugin.so", code=b"\x7fELF"), "none"),
        (package(entryPoint="bin/tool", code=b"\x7fELF"), "none"),
    ],
)
def test_a_new_plugin_is_disabled_and_names_its_bytes(here: World, content: bytes, runtime: str) -> None:
    done = here.install(content)
    assert done.status == 201
    plugin = done.json
    assert done.headers["location"] == f"{PLUGINS}/{plugin['pluginId']}"
    assert (plugin["isEnabled"], plugin["status"], plugin["registerStatus"]) == (0, "disabled", 2)
    assert (plugin["source"], plugin["runtime"], plugin["executable"]) == (
        "local",
        runtime,
        runtime == "python",
    )
    assert plugin["checksum"] == hashlib.sha256(content).hexdigest()
    assert here.get(plugin["pluginId"]) == plugin
    [version] = here.rows(PluginVersion)
    stored = here.bucket.head(version.s3_path, version.s3_version)
    assert stored is not None and stored.checksum_sha256 == plugin["checksum"]
    assert here.objects() == [plugin["s3Path"]]
    assert here.history(plugin["pluginId"]) == [("install", "1.0.0", None, "done")]
    assert here.audited() == [("plugin.install", plugin["pluginId"])]
    [tombstone] = here.rows(PluginTombstone)
    assert (tombstone.name, tombstone.version, tombstone.checksum) == (
        "notifier",
        "1.0.0",
        plugin["checksum"],
    )
    assert here.loads() == []


def test_wasm_is_handed_over_and_compiled_by_the_registering_function(here: World) -> None:
    content = wasm_package()
    done = here.install(content)
    assert done.status == 202
    install_id = done.json["installId"]
    assert done.headers["location"] == f"{INSTALLS}/{install_id}"
    assert "upload" not in done.json
    key = f"incoming/tasks/{install_id}.zip"
    assert here.objects() == [key]
    assert here.rows(Plugin) == []

    assert here.arrived(key) == "registered"

    task = here.task(install_id)
    assert (task["state"], task["progress"], task["version"]) == ("registered", 100, "1.0.0")
    plugin = here.get(task["pluginId"])
    assert (plugin["runtime"], plugin["isEnabled"]) == ("wasm", 0)
    [version] = here.rows(PluginVersion)
    assert version.wasm_sha256 == hashlib.sha256(WASM).hexdigest()
    assert here.objects() == sorted([version.compiled_path, version.s3_path])


MANIFEST = json.dumps(manifest())


@pytest.mark.parametrize(
    "text",
    [MANIFEST, json.dumps(manifest(), indent=4), json.dumps(dict(reversed(manifest().items())))],
    ids=["equal", "spaced", "another order"],
)
def test_a_manifest_beside_a_package_may_equal_the_one_inside(here: World, text: str) -> None:
    assert here.install(package(), manifest=text).status == 201


@pytest.mark.parametrize("as_file", [False, True], ids=["field", "file"])
def test_a_manifest_that_differs_is_refused_however_it_is_sent(here: World, as_file: bool) -> None:
    """One would be reviewed and the other installed; `curl -F manifest=@…` sends a file, not a field."""
    other = json.dumps(manifest(description="harmless"))
    before = here.everything()
    files = {"file": ("x.zip", package())} | (
        {"manifest": ("manifest.json", other.encode())} if as_file else {}
    )
    refused = here.client.post(INSTALL, files=files, form=LOCAL | ({} if as_file else {"manifest": other}))
    assert (refused.status, refused.json["errors"][0]["rule"]) == (422, "manifest.differs")
    assert here.everything() == before


@pytest.mark.parametrize("as_file", [False, True], ids=["field", "file"])
def test_a_bare_entry_point_is_packed_with_its_manifest(here: World, as_file: bool) -> None:
    files = {"file": ("main.py", CODE)} | (
        {"manifest": ("manifest.json", MANIFEST.encode())} if as_file else {}
    )
    form = LOCAL | ({} if as_file else {"manifest": MANIFEST})
    done = here.client.post(INSTALL, files=files, form=form)
    assert (done.status, done.json["manifest"]) == (201, manifest())
    again = here.client.post(INSTALL, files=files, form=form)
    assert (again.status, again.json["pluginId"]) == (200, done.json["pluginId"])


def test_a_program_may_begin_with_pk(here: World) -> None:
    done = here.client.post(
        INSTALL, files={"file": ("main.py", b"PK = 1\n" + CODE)}, form=LOCAL | {"manifest": MANIFEST}
    )
    assert done.status == 201


def test_a_bare_entry_point_must_be_the_one_that_the_manifest_names(here: World) -> None:
    refused = here.client.post(
        INSTALL, files={"file": ("other.py", CODE)}, form=LOCAL | {"manifest": MANIFEST}
    )
    assert [one["rule"] for one in refused.json["errors"]] == ["manifest.entry_point_missing"]


BROKEN = package(version="one", pluginType="virus")


@pytest.mark.parametrize(
    ("form", "files", "rules"),
    [
        (LOCAL, {"file": ("x.zip", BROKEN)}, {"schema.enum", "manifest.version"}),
        (LOCAL, {"file": ("x.zip", b"not a zip")}, {"zip.not_a_zip"}),
        (LOCAL, {"file": ("main.py", CODE)}, {"zip.not_a_zip"}),
        (LOCAL, {}, {"schema.required"}),
        (LOCAL, {"file": ("x.zip", package()), "signature": ("s", b"s")}, {"form.name"}),
        (LOCAL, {"file": ("m.py", CODE), "manifest": ("m.json", b"\xff")}, {"json.encoding"}),
        (LOCAL | {"manifest": "{"}, {"file": ("x.zip", package())}, {"json.syntax"}),
        ({"source": "elsewhere"}, {"file": ("x.zip", package())}, {"schema.enum"}),
        (LOCAL | {"surplus": "1"}, {"file": ("x.zip", package())}, {"schema.additionalProperties"}),
    ],
)
def test_a_refused_form_names_every_reason_and_stores_nothing(
    here: World, form: dict[str, str], files: dict[str, tuple[str, bytes]], rules: set[str]
) -> None:
    before = here.everything()
    refused = here.client.post(INSTALL, files=files, form=form)
    assert refused.status == 422
    assert {one["rule"] for one in refused.json["errors"]} == rules
    assert here.everything() == before


def test_there_is_no_market(here: World) -> None:
    before = here.everything()
    plugin_id = "plugin_notifier_abc123"
    for send, path in ((here.client.post, INSTALL), (here.client.put, f"{PLUGINS}/{plugin_id}")):
        refused = send(path, {"source": "market", "marketId": "x"})
        assert (refused.status, refused.json["code"]) == (422, "market.disabled")
    assert here.everything() == before


# -- a package that is uploaded ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("with_schema")
def test_an_upload_is_declared_then_sent_then_registered(database_url: str) -> None:
    content = package()
    with world(database_url) as here:
        opened = here.client.post(INSTALL, declared(content))
        assert opened.status == 202
        task = opened.json
        key = f"incoming/tasks/{task['installId']}.zip"
        assert opened.headers["location"] == f"{INSTALLS}/{task['installId']}"
        sha256 = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert (task["upload"]["fields"]["key"], task["upload"]["fields"]["x-amz-checksum-sha256"]) == (
            key,
            sha256,
        )
        assert datetime.fromisoformat(task["upload"]["expiresAt"]) > datetime.now(UTC)
        assert (task["state"], task["size"], task["pluginId"]) == ("awaiting_upload", len(content), None)
        assert here.rows(Plugin) == []

        assert here.upload(task, content) == "registered"

        done = here.task(task["installId"])
        assert (done["state"], done["errors"]) == ("registered", [])
        assert here.get(done["pluginId"])["checksum"] == hashlib.sha256(content).hexdigest()
        # What was uploaded is gone; what was registered is a copy under its own key.
        assert here.objects() == [here.get(done["pluginId"])["s3Path"]]
        assert here.arrived(key) == "gone"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"size": 1024 * 1024 + 1}, 413, "plugin.too_large"),
        ({"size": 0}, 422, "request.invalid"),
        ({"size": 2**31 + 1}, 422, "request.invalid"),
        ({"sha256": "A" * 64}, 422, "request.invalid"),
        ({"sha256": ...}, 422, "request.invalid"),
        ({"filename": ""}, 422, "request.invalid"),
        ({"surplus": 1}, 422, "request.invalid"),
    ],
)
def test_a_declaration_is_bounded(sqlite_url: str, change: dict[str, Any], status: int, code: str) -> None:
    body = {name: value for name, value in (declared(package()) | change).items() if value is not ...}
    with world(sqlite_url, HOTPLUG_MAX_PLUGIN_SIZE="1") as here:
        before = here.everything()
        refused = here.client.post(INSTALL, body)
        assert (refused.status, refused.json["code"]) == (status, code)
        assert here.everything() == before
        assert here.client.post(INSTALL, declared(package()) | {"size": 1024 * 1024}).status == 202


def test_an_upload_that_is_refused_later_says_why(here: World) -> None:
    opened = here.client.post(INSTALL, declared(BROKEN)).json
    assert here.upload(opened, BROKEN) == "rejected"
    task = here.task(opened["installId"])
    assert (task["state"], task["errorCode"]) == ("rejected", "plugin.manifest_invalid")
    assert {one["rule"] for one in task["errors"]} == {"schema.enum", "manifest.version"}
    assert (here.objects(), here.rows(Plugin)) == ([], [])


# -- a name that is taken -----------------------------------------------------------------------------------------


def test_the_same_bytes_again_are_the_same_plugin(here: World) -> None:
    plugin_id = here.installed()
    before = here.everything()
    again = here.install()
    assert (again.status, again.json["pluginId"]) == (200, plugin_id)
    assert here.everything() == before


@pytest.mark.parametrize("content", [package(code=CODE + b"#"), package(version="2.0.0")])
def test_other_bytes_under_a_name_are_an_update_or_nothing(here: World, content: bytes) -> None:
    plugin_id = here.installed()
    before = here.everything()
    refused = here.install(content)
    assert (refused.status, refused.json["code"]) == (409, "plugin.already_installed")
    assert (refused.json["pluginId"], refused.json["version"]) == (plugin_id, "1.0.0")
    assert here.everything() == before


def test_a_name_belongs_to_one_app(here: World) -> None:
    mine = here.installed()
    theirs = here.installed(client=here.publisher(), description="other bytes")
    assert mine != theirs


def test_after_an_uninstall_the_version_is_still_bound_to_its_bytes(here: World) -> None:
    first = here.installed()
    assert here.client.delete(f"{PLUGINS}/{first}").status == 204
    before = here.everything()
    refused = here.install(package(code=CODE + b"#"))
    assert (refused.status, refused.json["code"]) == (409, "plugin.version_exists")
    assert here.everything() == before
    second = here.installed()
    assert second != first
    # Another app's numbers are its own.
    here.installed(code=CODE + b"#", client=here.publisher())


def test_a_repeated_request_with_one_key_installs_once(here: World) -> None:
    key = {"Idempotency-Key": "k1"}
    files = {"file": ("x.zip", package())}
    first, second = (here.client.post(INSTALL, files=files, form=LOCAL, headers=key) for _ in range(2))
    assert (first.status, second.status) == (201, 201)
    assert first.json == second.json
    assert second.headers["idempotency-replayed"] == "true"


# -- updates ------------------------------------------------------------------------------------------------------


def test_an_update_keeps_the_id_and_the_old_version(here: World) -> None:
    plugin_id = here.installed()
    with here.bumps(plugin_id):
        done = here.update(plugin_id, package(version="1.1.0", description="better"))
    assert done.status == 200
    assert (done.json["pluginId"], done.json["version"]) == (plugin_id, "1.1.0")
    assert (done.json["description"], done.json["isEnabled"]) == ("better", 0)
    listed = here.get(plugin_id, "/versions")["items"]
    assert [(one["version"], one["active"]) for one in listed] == [("1.1.0", True), ("1.0.0", False)]
    assert here.history(plugin_id)[1:] == [("update", "1.1.0", "1.0.0", "done")]
    assert here.audited()[1:] == [("plugin.update", plugin_id)]
    # A disabled plugin is not loaded.
    assert here.loads() == []


@pytest.mark.parametrize(
    ("content", "form", "status", "code"),
    [
        (package("other", "2.0.0"), {}, 422, "plugin.name_differs"),
        (package(version="0.9.0"), {}, 422, "plugin.version_not_raised"),
        (package(version="1.0.0-rc.1"), {}, 422, "plugin.version_not_raised"),
        (package(version="1.0.0+other"), {}, 422, "plugin.version_not_raised"),
        (package(version="0.9.0"), {"allowDowngrade": "false"}, 422, "plugin.version_not_raised"),
        (package(version="0.9.0"), {"allowDowngrade": "yes"}, 422, "request.invalid"),
        (package(code=CODE + b"#"), {}, 409, "plugin.version_exists"),
        (package(code=CODE + b"#"), {"allowDowngrade": "true"}, 409, "plugin.version_exists"),
    ],
)
def test_an_update_that_is_none_changes_nothing(
    here: World, content: bytes, form: dict[str, str], status: int, code: str
) -> None:
    plugin_id = here.enabled()
    before, loads = here.everything(), len(here.loads())
    refused = here.update(plugin_id, content, None, **form)
    assert (refused.status, refused.json["code"]) == (status, code)
    assert here.everything() == before
    assert len(here.loads()) == loads


def test_a_version_may_go_down_on_demand_and_a_kept_one_is_active_again(here: World) -> None:
    plugin_id = here.installed()
    here.update(plugin_id, package(version="2.0.0"))
    back = here.update(plugin_id, package(), allowDowngrade="true")
    assert (back.status, back.json["version"]) == (200, "1.0.0")
    objects = here.objects()
    forth = here.update(plugin_id, package(version="2.0.0"))
    assert (forth.status, forth.json["version"]) == (200, "2.0.0")
    assert here.objects() == objects
    assert len(here.rows(PluginVersion)) == 2
    down = here.update(plugin_id, package(version="0.1.0"), allowDowngrade="true")
    assert (down.status, down.json["version"]) == (200, "0.1.0")


def test_an_update_to_what_is_active_is_done_already(here: World) -> None:
    plugin_id = here.enabled()
    before = here.everything()
    done = here.update(plugin_id, package())
    assert (done.status, done.json["pluginId"]) == (200, plugin_id)
    assert here.everything() == before


def test_an_enabled_plugin_is_loaded_in_its_new_version_before_it_is_active(here: World) -> None:
    plugin_id = here.enabled()
    seen: list[str] = []

    def loads(event: dict[str, Any]) -> dict[str, Any]:
        # While the new version is being loaded, readers get the old one.
        seen.append(here.client.get(f"{PLUGINS}/{plugin_id}").json["version"])
        return {"ok": True}

    here.replies.append(loads)
    done = here.update(plugin_id, package(version="2.0.0"))
    assert (done.json["version"], done.json["status"], seen) == ("2.0.0", "enabled", ["1.0.0"])
    loaded = here.loads()[-1]
    assert (loaded["operation"], loaded["plugin"]["version"]) == ("load", "2.0.0")
    assert loaded["plugin"]["checksum"] == done.json["checksum"]
    assert here.functions.invocations[-1].tenant == "admin"


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (load_failure("no module named x"), 422, "plugin.load_failed"),
        ({"ok": False, "error": {"kind": "internal", "code": "runtime.failed"}}, 502, "runtime.failed"),
        (timed_out(), 504, "function.timeout"),
    ],
)
def test_a_new_version_that_does_not_load_changes_nothing(
    here: World, reply: Any, status: int, code: str
) -> None:
    plugin_id = here.enabled()
    before = here.everything()
    here.replies.append(reply)
    refused = here.update(plugin_id, package(version="2.0.0"))
    assert (refused.status, refused.json["code"]) == (status, code)
    if status == 422:
        assert refused.json["errors"][0]["message"] == "no module named x"
    assert here.everything() == before
    assert here.get(plugin_id)["version"] == "1.0.0"


def test_a_broken_plugin_keeps_its_status_and_reason_through_an_update(here: World) -> None:
    plugin_id = here.installed()
    here.replies.append(load_failure("boom"))
    assert here.act(plugin_id, "enable").status == 422
    done = here.update(plugin_id, package(version="2.0.0"))
    assert (done.json["status"], done.json["registerError"]) == ("error", "boom")
    assert here.act(plugin_id, "enable").json["registerError"] is None


SCHEMA = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}


def test_stored_configs_must_fit_the_new_schema(here: World) -> None:
    plugin_id = here.installed(configSchema=SCHEMA)
    config = here.act(plugin_id, "configs", json={"name": "main", "configItems": {"url": "x"}}).json
    before = here.everything()
    number = {"type": "object", "properties": {"url": {"type": "integer"}}}
    refused = here.update(plugin_id, package(version="2.0.0", configSchema=number))
    assert (refused.status, refused.json["code"]) == (422, "plugin.config_incompatible")
    assert refused.json["errors"][0]["pointer"] == f"/configs/{config['configId']}/url"
    assert here.everything() == before
    wider = SCHEMA | {"properties": {"url": {"type": ["string", "integer"]}}}
    assert here.update(plugin_id, package(version="2.0.0", configSchema=wider)).status == 200


def test_an_update_to_a_kept_version_keeps_the_config_of_now(here: World) -> None:
    """Only a rollback brings the values of then back: an update says what is to be, in all but the values."""
    plugin_id = here.installed(configSchema=SCHEMA)
    made = here.act(plugin_id, "configs", json={"name": "main", "configItems": {"url": "x"}}).json
    config = f"{PLUGINS}/{plugin_id}/configs/{made['configId']}"
    assert here.update(plugin_id, package(version="2.0.0", configSchema={"type": "object"})).status == 200
    assert here.client.put(config, {"configItems": {"url": "z"}}).status == 200
    back = here.update(plugin_id, package(configSchema=SCHEMA), allowDowngrade="true")
    assert (back.status, back.json["version"]) == (200, "1.0.0")
    assert here.client.get(config).json["configItems"] == {"url": "z"}


def test_a_version_that_asks_for_more_needs_a_grant_first(here: World) -> None:
    plugin_id = here.enabled()
    more = package(version="2.0.0", permissions={"network": ["a.example.com", "b.example.com"]})
    grants = f"{PLUGINS}/{plugin_id}/grants"
    assert here.client.put(grants, {"network": ["a.example.com"]}).status == 200
    before, loads = here.everything(), len(here.loads())
    refused = here.update(plugin_id, more)
    assert (refused.status, refused.json["code"]) == (403, "plugin.grant_needed")
    assert [one["message"] for one in refused.json["errors"]] == ["b.example.com is not granted"]
    assert (here.everything(), len(here.loads())) == (before, loads)
    here.client.put(grants, {"network": ["a.example.com", "b.example.com"]})
    assert here.update(plugin_id, more).status == 200
    assert here.functions.invocations[-1].name == "runtime_network"
    assert here.loads()[-1]["plugin"]["network"] == ["a.example.com", "b.example.com"]


def test_an_update_honours_if_match(here: World) -> None:
    plugin_id = here.enabled()
    tag = here.client.get(f"{PLUGINS}/{plugin_id}").headers["etag"]
    body = package(version="2.0.0")
    before, loads = here.everything(), len(here.loads())
    stale = {"If-Match": '"0"'}
    assert here.update(plugin_id, body, headers=stale).status == 412
    assert here.client.put(f"{PLUGINS}/{plugin_id}", declared(body), headers=stale).status == 412
    assert (here.everything(), len(here.loads())) == (before, loads)
    assert here.update(plugin_id, body, headers={"If-Match": tag}).status == 200


def test_wasm_is_handed_over_only_where_the_update_may_be(here: World) -> None:
    plugin_id, other = here.installed(), here.publisher()
    before = here.everything()
    assert here.update(plugin_id, wasm_package("2.0.0"), headers={"If-Match": '"0"'}).status == 412
    assert here.update(plugin_id, wasm_package("2.0.0"), other).status == 404
    assert here.everything() == before
    opened = here.update(plugin_id, wasm_package("2.0.0"))
    assert (opened.status, opened.json["pluginId"]) == (202, plugin_id)


def test_a_plugin_that_changes_while_its_new_version_loads_is_not_overwritten(here: World) -> None:
    plugin_id = here.enabled()
    tag = here.client.get(f"{PLUGINS}/{plugin_id}").headers["etag"]

    def disabled_meanwhile(event: dict[str, Any]) -> dict[str, Any]:
        assert here.act(plugin_id, "disable").status == 200
        return {"ok": True}

    for headers, status in ((None, 409), ({"If-Match": tag}, 412)):
        if here.get(plugin_id)["isEnabled"] == 0:
            here.act(plugin_id, "enable")
            tag = here.client.get(f"{PLUGINS}/{plugin_id}").headers["etag"]
            headers = headers and {"If-Match": tag}
        here.replies.append(disabled_meanwhile)
        objects = here.objects()
        refused = here.update(plugin_id, package(version="2.0.0"), headers=headers)
        assert refused.status == status
        assert here.objects() == objects
        assert (here.get(plugin_id)["version"], here.get(plugin_id)["isEnabled"]) == ("1.0.0", 0)


def test_an_update_of_any_size_is_uploaded(here: World) -> None:
    plugin_id = here.enabled()
    content = package(version="2.0.0")
    opened = here.client.put(f"{PLUGINS}/{plugin_id}", declared(content))
    assert (opened.status, opened.json["pluginId"]) == (202, plugin_id)
    assert here.upload(opened.json, content) == "registered"
    assert (here.get(plugin_id)["version"], here.get(plugin_id)["status"]) == ("2.0.0", "enabled")
    lower = package(version="1.5.0")
    refused = here.client.put(f"{PLUGINS}/{plugin_id}", declared(lower)).json
    assert here.upload(refused, lower) == "rejected"
    assert here.task(refused["installId"])["errorCode"] == "plugin.version_not_raised"
    allowed = here.client.put(f"{PLUGINS}/{plugin_id}", declared(lower, allowDowngrade=True)).json
    assert here.upload(allowed, lower) == "registered"
    assert here.get(plugin_id)["version"] == "1.5.0"


def test_only_the_owner_updates(here: World) -> None:
    other = here.publisher()
    private = here.installed()
    body = package(version="2.0.0")
    assert here.update(private, body, other).status == 404
    assert here.client.put(f"{PLUGINS}/{private}", declared(body), credential=other.credential).status == 404
    here.client.patch(f"{PLUGINS}/{private}", {"visibility": "shared"})
    refused = here.update(private, body, other)
    assert (refused.status, refused.json["code"]) == (403, "plugin.not_owner")


# -- an uninstall in between --------------------------------------------------------------------------------------


def test_an_update_of_a_plugin_that_was_uninstalled_is_rejected(here: World) -> None:
    plugin_id = here.installed()
    content = package(version="2.0.0")
    opened = here.client.put(f"{PLUGINS}/{plugin_id}", declared(content)).json
    assert here.client.delete(f"{PLUGINS}/{plugin_id}").status == 204
    assert here.upload(opened, content) == "rejected"
    task = here.task(opened["installId"])
    assert (task["state"], task["errorCode"]) == ("rejected", "plugin.not_found")
    assert task["errors"][0]["message"] == "The plugin that this package updates is not installed."
    assert here.rows(Plugin) == []
    assert not [key for key in here.objects() if "2.0.0" in key or key.startswith("incoming/")]
    assert here.update(plugin_id, content).status == 404


def test_an_uninstall_while_an_update_is_being_registered_wins(here: World) -> None:
    plugin_id = here.enabled()
    content = package(version="2.0.0")

    def uninstalled_meanwhile(event: dict[str, Any]) -> dict[str, Any]:
        assert here.client.delete(f"{PLUGINS}/{plugin_id}").status == 204
        return {"ok": True}

    opened = here.client.put(f"{PLUGINS}/{plugin_id}", declared(content)).json
    here.replies.append(uninstalled_meanwhile)
    assert here.upload(opened, content) == "rejected"
    assert here.task(opened["installId"])["errorCode"] == "plugin.not_found"
    assert here.rows(Plugin) == []
    assert [row.version for row in here.rows(PluginVersion)] == ["1.0.0"]
    assert not [key for key in here.objects() if "2.0.0" in key]
    # The number was never registered: it is still free.
    assert [row.version for row in here.rows(PluginTombstone)] == ["1.0.0"]


# -- install tasks ------------------------------------------------------------------------------------------------


def _opened(here: World, version: str = "1.0.0") -> Any:
    return here.client.post(INSTALL, declared(package(version=version))).json


def _failed(here: World, install_id: str) -> None:
    key, now = installs.key_of(install_id), datetime.now(UTC)
    assert process.database().run(
        lambda unit: installs.fail(unit, key, "v7", "install.gave_up", "Again.", now)
    )


def test_tasks_are_listed_newest_first_and_filtered(here: World) -> None:
    opened = [_opened(here)["installId"] for _ in range(5)]
    here.client.delete(f"{INSTALLS}/{opened[1]}")
    pages, cursor = [], ""
    while cursor is not None:
        page = here.client.get(f"{INSTALLS}?limit=2{cursor and '&cursor=' + cursor}").json
        pages.append([one["installId"] for one in page["items"]])
        cursor = page["nextCursor"]
    assert pages == [[opened[4], opened[3]], [opened[2], opened[1]], [opened[0]]]
    cancelled = here.client.get(f"{INSTALLS}?state=cancelled").json["items"]
    assert [one["installId"] for one in cancelled] == [opened[1]]
    assert here.client.get(f"{INSTALLS}?state=lost").status == 400
    other = here.publisher()
    assert other.get(INSTALLS).json["items"] == []
    for answer in (
        other.get(f"{INSTALLS}/{opened[0]}"),
        other.delete(f"{INSTALLS}/{opened[0]}"),
        other.post(f"{INSTALLS}/{opened[0]}/retry"),
    ):
        assert (answer.status, answer.json["code"]) == (404, "install.not_found")


def test_a_task_is_cancelled_by_who_saw_how_far_it_is(here: World) -> None:
    opened = _opened(here)
    path = f"{INSTALLS}/{opened['installId']}"
    stale = here.client.delete(path, headers={"If-Match": '"another"'})
    assert (stale.status, stale.json["code"]) == (412, "precondition.failed")
    seen = here.client.get(path).headers["etag"]
    assert here.client.delete(path, headers={"If-Match": seen}).status == 200


def test_a_cancelled_task_stays_cancelled_and_its_upload_goes(here: World) -> None:
    opened = _opened(here)
    cancelled = here.client.delete(f"{INSTALLS}/{opened['installId']}")
    assert (cancelled.status, cancelled.json["state"]) == (200, "cancelled")
    before = here.everything()
    assert here.client.delete(f"{INSTALLS}/{opened['installId']}").json == cancelled.json
    assert here.everything() == before
    assert here.upload(opened, package()) == "settled"
    assert (here.objects(), here.rows(Plugin)) == ([], [])
    retried = here.client.post(f"{INSTALLS}/{opened['installId']}/retry")
    assert (retried.status, retried.json["code"]) == (409, "install.not_failed")


def test_a_task_that_is_cancelled_while_it_is_being_registered_registers_nothing(here: World) -> None:
    plugin_id = here.enabled()
    content = package(version="2.0.0")
    opened = here.client.put(f"{PLUGINS}/{plugin_id}", declared(content)).json

    def cancelled_meanwhile(event: dict[str, Any]) -> dict[str, Any]:
        assert here.client.delete(f"{INSTALLS}/{opened['installId']}").status == 200
        return {"ok": True}

    here.replies.append(cancelled_meanwhile)
    with pytest.raises(installs.Settled):
        here.upload(opened, content)
    assert here.task(opened["installId"])["state"] == "cancelled"
    assert here.get(plugin_id)["version"] == "1.0.0"
    assert [row.version for row in here.rows(PluginVersion)] == ["1.0.0"]
    assert not [key for key in here.objects() if "2.0.0" in key]


@pytest.mark.parametrize("content", [package(), BROKEN], ids=["registered", "rejected"])
def test_a_task_that_ended_is_neither_cancelled_nor_retried(here: World, content: bytes) -> None:
    opened = here.client.post(INSTALL, declared(content)).json
    here.upload(opened, content)
    before = here.everything()
    cancel = here.client.delete(f"{INSTALLS}/{opened['installId']}")
    retry = here.client.post(f"{INSTALLS}/{opened['installId']}/retry")
    assert (cancel.status, cancel.json["code"]) == (409, "install.ended")
    assert (retry.status, retry.json["code"]) == (409, "install.not_failed")
    assert here.everything() == before


def test_a_failed_task_is_ready_again_and_names_the_object_that_was_given_up(here: World) -> None:
    opened = _opened(here)
    waiting = here.client.post(f"{INSTALLS}/{opened['installId']}/retry")
    assert (waiting.status, waiting.json["code"]) == (409, "install.not_failed")
    _failed(here, opened["installId"])
    failed = here.task(opened["installId"])
    assert (failed["state"], failed["errorCode"]) == ("failed", "install.gave_up")
    # No queue to tell: the task is ready all the same, and the sweep announces it.
    retried = here.client.post(f"{INSTALLS}/{opened['installId']}/retry")
    assert (retried.status, retried.json["code"]) == (503, "install.no_queue")
    task = here.task(opened["installId"])
    assert (task["state"], task["step"], task["errors"], task["errorCode"]) == (
        "verifying",
        "queued",
        [],
        None,
    )
    [row] = here.rows(PluginInstall)
    assert row.object_version == "v7"
    assert here.audited() == [("install.create", task["installId"]), ("install.retry", task["installId"])]


def test_a_failed_task_may_be_cancelled(here: World) -> None:
    opened = _opened(here)
    _failed(here, opened["installId"])
    assert here.client.delete(f"{INSTALLS}/{opened['installId']}").json["state"] == "cancelled"


# -- checking a manifest --------------------------------------------------------------------------------------------


def test_a_manifest_is_checked_and_nothing_is_stored(here: World) -> None:
    viewer = here.publisher(role="viewer")
    before = here.everything()
    good = viewer.post(f"{PLUGINS}/validate-manifest", manifest(x_vendor=1))
    assert (good.status, good.json["valid"], good.json["manifest"]) == (200, True, manifest(x_vendor=1))
    bad = viewer.post(f"{PLUGINS}/validate-manifest", manifest("Bad Name", "one", pluginType="virus"))
    assert bad.status == 422
    assert sorted((one["pointer"], one["rule"]) for one in bad.json["errors"]) == [
        ("/name", "schema.pattern"), ("/pluginType", "schema.enum"), ("/version", "manifest.version"),
    ]  # fmt: skip
    path = f"{PLUGINS}/validate-manifest"
    assert viewer.post(path, files={"file": ("x.zip", package())}).json["manifest"] == manifest()
    zipped = viewer.post(path, files={"file": ("x.zip", BROKEN)})
    assert {one["rule"] for one in zipped.json["errors"]} == {"schema.enum", "manifest.version"}
    surplus = viewer.post(path, files={"file": ("x.zip", package()), "manifest": ("m", b"{}")})
    assert [one["pointer"] for one in surplus.json["errors"]] == ["/manifest"]
    assert here.everything() == before


# -- the app that it is for -----------------------------------------------------------------------------------------


def test_a_disabled_app_gets_no_plugin(here: World) -> None:
    publisher = here.publisher()
    opened = publisher.post(INSTALL, declared(package())).json
    here.client.patch("/api/v1/apps/acme", {"status": 0})
    assert here.upload(opened, package()) == "rejected"
    [task] = here.rows(PluginInstall)
    assert (task.state, task.error_code) == ("rejected", "install.app_disabled")
    assert here.rows(Plugin) == []


def test_an_app_that_is_disabled_while_its_plugin_is_registered_gets_none(here: World) -> None:
    plugin_id = here.enabled(client=here.publisher())
    content = package(version="2.0.0")
    opened = here.publisher().put(f"{PLUGINS}/{plugin_id}", declared(content)).json

    def disabled_meanwhile(event: dict[str, Any]) -> dict[str, Any]:
        assert here.client.patch("/api/v1/apps/acme", {"status": 0}).status == 200
        return {"ok": True}

    here.replies.append(disabled_meanwhile)
    assert here.upload(opened, content) == "rejected"
    [task] = here.rows(PluginInstall)
    assert (task.state, task.error_code) == ("rejected", "install.app_disabled")
    assert [row.version for row in here.rows(PluginVersion)] == ["1.0.0"]
    assert not [key for key in here.objects() if "2.0.0" in key]


@pytest.mark.usefixtures("with_schema")
def test_an_app_is_not_deleted_under_an_install(database_url: str) -> None:
    """Two writers: one has looked at what the app owns and deletes it, the other opens an install for it."""
    with world(database_url) as here:
        here.publisher()
        app_id = int(here.client.get("/api/v1/apps/acme").json["id"])
        publisher = Caller(app_id, "acme", 1, "publisher", "r1")
        admin = Caller(1, "admin", 1, "admin", "r2")
        elsewhere = DatabaseService(here.deployment.url)
        looked, outcomes = threading.Event(), []

        def owned(session: Any, owner: int) -> list[str]:
            found = owned_by_app(session, owner)
            looked.set()
            # The other writer is let in here; it must find the app's row locked.
            writer.join(0.5)
            return found

        def open_install() -> None:
            looked.wait(20)
            task = installs.new_task(
                publisher, filename="x", size=1, sha256="0" * 64, target=None, allow_downgrade=False
            )
            try:
                elsewhere.run(lambda unit: installs.save(unit, publisher, installs.copy_of(task)))
                outcomes.append("opened")
            except Forbidden as error:
                outcomes.append(error.code)

        writer = threading.Thread(target=open_install)
        writer.start()
        process.database().run(lambda unit: apps.delete_app(unit, admin, "acme", None, owned))
        writer.join(30)
        elsewhere.close()
        assert outcomes == ["install.app_disabled"]
        assert here.rows(PluginInstall) == []


@pytest.mark.usefixtures("with_schema")
def test_an_app_waits_for_the_unit_that_adds_to_it(mysql_url: str) -> None:
    """The other order: the registering unit holds the app, and its deletion finds what was registered."""
    with world(mysql_url) as here:
        here.publisher()
        app_id = int(here.client.get("/api/v1/apps/acme").json["id"])
        publisher = Caller(app_id, "acme", 1, "publisher", "r1")
        held, outcomes = threading.Event(), []
        elsewhere = DatabaseService(here.deployment.url)

        def delete() -> None:
            held.wait(20)
            admin = Caller(1, "admin", 1, "admin", "r2")
            try:
                elsewhere.run(lambda unit: apps.delete_app(unit, admin, "acme", None, owned_by_app))
                outcomes.append("deleted")
            except Conflict as error:
                outcomes.append(error.code)

        deleter = threading.Thread(target=delete)
        deleter.start()
        task = installs.new_task(
            publisher, filename="x", size=1, sha256="0" * 64, target=None, allow_downgrade=False
        )
        with process.database().session_getter() as unit:
            hold_owner(unit, publisher)
            held.set()
            deleter.join(0.5)
            assert outcomes == []
            installs.save(unit, publisher, task)
        deleter.join(30)
        elsewhere.close()
        assert outcomes == ["app.owns_resources"]


def test_two_that_install_the_same_package_at_once_are_one_plugin(here: World) -> None:
    """The loser placed an object that no row names; it does not wait for the sweep."""
    first = here.client.post(INSTALL, declared(package())).json
    second = here.client.post(INSTALL, declared(package())).json
    waiting = [second]

    def other_first(operation: str, name: str) -> None:
        if (operation, name) == ("register", "commit") and waiting:
            assert here.upload(waiting.pop(), package()) == "registered"

    before = steps.observe(other_first)
    try:
        assert here.upload(first, package()) == "registered"
    finally:
        steps.observe(before)
    assert len(here.rows(Plugin)) == 1
    assert here.objects() == [row.s3_path for row in here.rows(Plugin)]
    assert here.task(first["installId"])["pluginId"] == here.task(second["installId"])["pluginId"]


def test_services_are_this_deployments(here: World) -> None:
    """Nothing of an earlier deployment is kept: they are the process's own, whatever it forgot since."""
    assert plugin_services().database is process.database()
    assert plugin_services().cache is process.cache()
    assert plugin_services().functions is here.functions
