from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.core import errors
from chalicelib.plugins.package import manifest_values
from chalicelib.plugins.package.manifest import Action, Dependency, Manifest, Resources, parse_manifest
from tests.corpus import cases
from tests.corpus.good_packages import FULL

FILES = {"manifest.json": 1, "main.py": 1, "icon.png": 1}


def parse(document: Any, files: dict[str, int] | None = FILES, platform: str = "0.2.0") -> Manifest:
    return parse_manifest(json.dumps(document).encode(), files=files, platform_version=platform)


def refused(
    document: Any, files: dict[str, int] | None = FILES, platform: str = "0.2.0"
) -> set[tuple[str, str]]:
    with pytest.raises(errors.Invalid) as caught:
        parse(document, files, platform)
    assert caught.value.code == "plugin.manifest_invalid"
    assert all(violation.message for violation in caught.value.errors)
    return {(violation.pointer, violation.rule) for violation in caught.value.errors}


def test_every_field_is_read() -> None:
    found = parse(FULL)
    assert (found.name, found.version, found.plugin_type) == ("notify-chat", "1.0.0", "notify")
    assert (found.entry_point, found.runtime) == ("main.py", "python")
    assert found.license == "Apache-2.0 OR (MIT AND BSD-3-Clause)" and found.tags == ("chat", "notify")
    assert found.dependencies == (
        Dependency("text-format", "^1.2", False),
        Dependency("markdown", ">=1.0.0 <3.0.0", True),
    )
    assert found.config_schema == FULL["configSchema"] and found.params_schema == {"type": "object"}
    assert found.default_config == {"retries": 3}
    assert found.actions["send"] == Action("Send one message.", *list(FULL["actions"]["send"].values())[1:])
    assert found.actions["sendMany"] == Action("", None, None)
    assert (found.min_version, found.max_version) == ("0.1.0", "1.0.0")
    assert found.resources == Resources(250, 64 * 1024**2, 10 * 1024**2, 5000)
    assert found.network == ("hooks.example.com", "api.example.com:8443")
    assert (found.author, found.icon) == (FULL["author"], "icon.png")
    for name in ("description", "homepage", "repository", "documentation"):
        assert getattr(found, name) == FULL[name]
    assert found.document == FULL
    assert len(found.warnings) == 1 and "x_vendor" in found.warnings[0]


def test_what_is_left_out_has_its_default() -> None:
    found = parse(cases.manifest())
    assert found.resources == Resources(100, 128 * 1024**2, 50 * 1024**2, 10_000)
    assert (found.dependencies, found.actions, found.network, found.default_config) == ((), {}, (), {})
    assert found.config_schema is None and found.min_version is None and found.warnings == ()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("ci", "build"),
        ("cd", "deploy"),
        ("notify", "notify"),
        ("deploy", "deploy"),
        ("test", "test"),
        ("build", "build"),
        ("custom", "custom"),
    ],
)
def test_older_types_are_mapped_with_a_warning(given: str, meant: str) -> None:
    found = parse(cases.manifest(pluginType=given))
    assert found.plugin_type == meant
    assert len(found.warnings) == (given != meant)


@pytest.mark.parametrize(
    ("entry_point", "runtime", "warned"),
    [
        ("a/plugin.wasm", "wasm", False),
        ("main.py", "python", False),
        ("x.so", "none", True),
        ("wasm", "none", True),
    ],
)
def test_the_runtime_follows_from_the_entry_point(entry_point: str, runtime: str, warned: bool) -> None:
    found = parse(cases.manifest(entryPoint=entry_point), files=None)
    assert found.runtime == runtime and bool(found.warnings) == warned


def test_all_violations_come_at_once_with_their_pointers() -> None:
    document = cases.manifest(
        name="Bad Name",
        version="1",
        pluginType="virus",
        entryPoint="../main.py",
        homepage="ftp://x",
        license="MIT OR",
        tags=["a", "a", ""],
        dependencies=["x", {"name": "ok", "extra": 1}],
        configSchema={"properties": {"n": {"type": "nope"}}},
        paramsSchema={"$ref": "https://example.com"},
        defaultConfig=[],
        actions={"1st": {}, "ok": {"paramsSchema": {"pattern": "("}, "returnsSchema": 3}},
        minVersion="2.0.0",
        resources={"cpu": "1x", "memory": "5 MB", "timeoutMs": 0, "gpu": 1},
        permissions={"network": ["*"], "files": []},
    )
    assert refused(document) == {
        ("/name", "schema.pattern"),
        ("/version", "manifest.version"),
        ("/pluginType", "schema.enum"),
        ("/entryPoint", "manifest.entry_point"),
        ("/entryPoint", "manifest.entry_point_missing"),
        ("/homepage", "schema.pattern"),
        ("/license", "manifest.license"),
        ("/tags", "schema.uniqueItems"),
        ("/tags/2", "schema.minLength"),
        ("/dependencies/0", "manifest.dependency"),
        ("/dependencies/1/extra", "schema.additionalProperties"),
        ("/configSchema/properties/n/type", "schema.invalid"),
        ("/paramsSchema/$ref", "schema.remote_ref"),
        ("/defaultConfig", "schema.type"),
        ("/actions/1st", "schema.pattern"),
        ("/actions/ok/paramsSchema/pattern", "schema.pattern"),
        ("/actions/ok/returnsSchema", "schema.type"),
        ("/minVersion", "manifest.platform"),
        ("/resources/cpu", "manifest.resources"),
        ("/resources/memory", "manifest.resources"),
        ("/resources/timeoutMs", "schema.minimum"),
        ("/resources/gpu", "schema.additionalProperties"),
        ("/permissions/network/0", "schema.pattern"),
        ("/permissions/files", "schema.additionalProperties"),
    }


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, True, 1.5, [[]], {"a": {}}, [None], [{}]])
@pytest.mark.parametrize("name", sorted({*FULL, "documentation"} - {"x_vendor"}))
def test_a_member_of_any_type_is_answered_and_never_crashes(name: str, value: Any) -> None:
    """Type confusion: each member in turn is each kind of JSON value."""
    try:
        assert parse({**FULL, name: value}).document[name] == value
    except errors.Invalid as refusal:
        assert any(violation.pointer.split("/")[1] == name for violation in refusal.errors)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"x"', b"1"])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(errors.Invalid) as caught:
        parse_manifest(raw, files=None, platform_version="0.2.0")
    assert [(v.pointer, v.rule) for v in caught.value.errors] == [("", "schema.type")]


def test_files_are_only_asked_for_where_they_are_known() -> None:
    document = cases.manifest(entryPoint="other.py", icon="icon.svg")
    assert refused(document) == {("/entryPoint", "manifest.entry_point_missing"), ("/icon", "manifest.icon")}
    assert parse(document, files=None).icon == "icon.svg"
    assert parse(cases.manifest(icon="https://example.com/i.png")).icon == "https://example.com/i.png"


@pytest.mark.parametrize(
    ("least", "most", "platform", "rules"),
    [
        ("1.0.0", "1.0.0", "1.0.0", set()),
        ("1.0.0", ..., "1.0.0-rc.1", {("/minVersion", "manifest.platform")}),
        (..., "1.0.0", "1.0.1", {("/maxVersion", "manifest.platform")}),
        ("2.0.0", "1.0.0", "1.5.0", {("/maxVersion", "manifest.version_order")}),
        ("2", "1.0.0-", "1.5.0", {("/minVersion", "manifest.version"), ("/maxVersion", "manifest.version")}),
    ],
)
def test_the_range_of_platform_versions(
    least: Any, most: Any, platform: str, rules: set[tuple[str, str]]
) -> None:
    document = cases.manifest(minVersion=least, maxVersion=most)
    if rules:
        assert refused(document, platform=platform) == rules
    else:
        assert parse(document, platform=platform).min_version == least


def test_a_default_config_may_be_incomplete_but_not_wrong() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}},
        "required": ["a", "c"],
    }
    assert parse(cases.manifest(configSchema=schema, defaultConfig={"a": {}})).default_config == {"a": {}}
    wrong = cases.manifest(configSchema=schema, defaultConfig={"a": {"b": "x"}})
    assert refused(wrong) == {("/defaultConfig/a/b", "schema.type")}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("MIT", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("GPL-2.0+", True),
        ("(MIT)", True),
        ("((MIT OR ISC) AND Zlib)", True),
        ("LicenseRef-own", True),
        ("UNLICENSED", True),
        ("", False),
        ("MIT ISC", False),
        ("AND", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT)", False),
        ("()", False),
        ("MIT/ISC", False),
    ],
)
def test_licenses(text: str, good: bool) -> None:
    assert manifest_values.is_license(text) is good


@pytest.mark.parametrize(
    ("value", "millis"),
    [
        ("100m", 100),
        ("2", 2000),
        (2, 2000),
        (0.5, 500),
        ("0.25", 250),
        ("m", None),
        ("-1", None),
        ("1e3", None),
        ("٣", None),
        ("1.2345", None),
        (1e300, None),
        (True, None),
    ],
)
def test_processors(value: Any, millis: int | None) -> None:
    assert manifest_values.cpu_millis(value) == millis


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("128Mi", 128 * 1024**2),
        ("1Gi", 1024**3),
        ("5M", 5_000_000),
        ("4Ki", 4096),
        ("7", 7),
        ("1.5Mi", None),
        ("-1Mi", None),
        ("1 Mi", None),
        ("Mi", None),
        ("1mi", None),
        ("1Mi\n", None),
        ("9" * 13, None),
    ],
)
def test_amounts_of_bytes(value: str, size: int | None) -> None:
    assert manifest_values.byte_count(value) == size
