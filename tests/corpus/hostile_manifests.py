"""Packages whose manifest is no JSON or breaks a rule."""

from __future__ import annotations

from typing import Any

from tests.corpus.cases import MANIFEST, Case, manifest, with_manifest


def json_case(name: str, rule: str, content: bytes) -> Case:
    return Case(f"manifest: {name}", with_manifest(content), f"json.{rule}")


_TEXT = MANIFEST.data.decode()
JSON = [
    json_case("10 MB", "size", _TEXT.encode() + b" " * 10_000_000),
    json_case("100,000 deep", "depth", b'{"a":' * 30_000 + b"1"),
    json_case("100,000 arrays deep", "depth", b"[" * 100_000),
    json_case("65 deep", "depth", b"[" * 65 + b"]" * 65),
    json_case("duplicate key", "duplicate_key", _TEXT[:-1].encode() + b', "name": "other-name"}'),
    json_case(
        "duplicate key by escape", "duplicate_key", _TEXT[:-1].encode() + b', "n\\u0061me": "other-name"}'
    ),
    json_case("NaN", "number", _TEXT[:-1].encode() + b', "x": NaN}'),
    json_case("infinity", "number", _TEXT[:-1].encode() + b', "x": [-Infinity]}'),
    json_case("number beyond a double", "number", _TEXT[:-1].encode() + b', "x": 1e999}'),
    json_case(
        "integer of 200,000 digits", "number", _TEXT[:-1].encode() + b', "x": ' + b"9" * 200_000 + b"}"
    ),
    json_case("byte order mark", "encoding", b"\xef\xbb\xbf" + _TEXT.encode()),
    json_case("UTF-16", "encoding", _TEXT.encode("utf-16")),
    json_case("Latin-1", "encoding", _TEXT[:-1].encode() + b', "x": "\xe9"}'),
    json_case("overlong UTF-8", "encoding", _TEXT[:-1].encode() + b', "x": "\xc0\xaf"}'),
    json_case("lone surrogate", "encoding", _TEXT[:-1].encode() + b', "x": "\\ud800"}'),
    json_case("empty", "syntax", b""),
    json_case("trailing comma", "syntax", _TEXT[:-1].encode() + b",}"),
    json_case("comment", "syntax", b"// hi\n" + _TEXT.encode()),
    json_case("two documents", "syntax", _TEXT.encode() * 2),
    json_case("raw control character", "syntax", _TEXT[:-1].encode() + b', "x": "\x01"}'),
]


def rule_case(label: str, rule: str, /, **changes: Any) -> Case:
    return Case(f"manifest: {label}", with_manifest(manifest(**changes)), rule)


def doubling(levels: int) -> dict[str, Any]:
    """Billion laughs as a schema: each definition applies the next one twice."""
    steps = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{levels}": {}}}


RULES = [
    Case("manifest: an array", with_manifest(b"[]"), "schema.type"),
    rule_case("no name", "schema.required", name=...),
    rule_case("no version", "schema.required", version=...),
    rule_case("no type", "schema.required", pluginType=...),
    rule_case("no entry point", "schema.required", entryPoint=...),
    rule_case("name with a path", "schema.pattern", name="../evil"),
    rule_case("name with a line feed", "schema.pattern", name="evil\n"),
    rule_case("name of one letter", "schema.pattern", name="e"),
    rule_case("name of 65 letters", "schema.pattern", name="e" * 65),
    rule_case("unknown type", "schema.enum", pluginType="virus"),
    rule_case("version with a path", "manifest.version", version="1.0.0/../../x"),
    rule_case("version too long", "manifest.version", version="1.0.0-" + "a" * 30),
    rule_case("entry point elsewhere", "manifest.entry_point_missing", entryPoint="other.py"),
    rule_case("entry point is the manifest", "manifest.entry_point", entryPoint="manifest.json"),
    rule_case("script as homepage", "schema.pattern", homepage="javascript:alert(1)"),
    rule_case("script as icon", "manifest.icon", icon="javascript:alert(1)"),
    rule_case("icon not in the package", "manifest.icon", icon="icon.png"),
    rule_case("escape sequence in the description", "schema.pattern", description="\x1b[2J"),
    rule_case("free text as license", "manifest.license", license="MIT License, probably"),
    rule_case("dependency without a range", "manifest.dependency", dependencies=["markdown"]),
    rule_case("dependency with a bad range", "manifest.dependency", dependencies=["markdown@latest"]),
    rule_case("dependency on itself", "manifest.dependency", dependencies=["notify-chat@^1"]),
    rule_case(
        "dependency twice", "manifest.dependency", dependencies=["a1@^1", {"name": "a1", "range": "2.x"}]
    ),
    rule_case(
        "schema of another draft",
        "schema.dialect",
        configSchema={"$schema": "http://json-schema.org/draft-07/schema#"},
    ),
    rule_case("invalid schema", "schema.invalid", configSchema={"type": "strnig"}),
    rule_case(
        "schema with a remote reference",
        "schema.remote_ref",
        paramsSchema={"$ref": "http://169.254.169.254/latest/meta-data"},
    ),
    rule_case(
        "schema with a reference to nothing",
        "schema.dangling_ref",
        actions={"send": {"paramsSchema": {"$ref": "#/$defs/x"}}},
    ),
    rule_case("schema that refers to itself", "schema.ref_loop", configSchema={"$ref": "#"}),
    rule_case("schema that doubles", "schema.cost", actions={"send": {"returnsSchema": doubling(30)}}),
    rule_case("pattern with a backreference", "schema.pattern", configSchema={"pattern": "(a)\\1"}),
    rule_case("pattern that explodes", "schema.pattern", configSchema={"pattern": "((a{1,99}){1,99}){1,99}"}),
    rule_case(
        "patterns that are large together",
        "schema.too_large",
        configSchema={"allOf": [{"pattern": f"a{{{2900 + i}}}"} for i in range(90)]},
    ),
    rule_case(
        "schemas that are large together",
        "manifest.schemas_too_large",
        actions={f"a{i}": {"paramsSchema": {"allOf": [{}] * 60}} for i in range(90)},
    ),
    rule_case("one schema that is too large", "schema.too_large", configSchema={"allOf": [{}] * 4500}),
    rule_case(
        "default of the wrong type",
        "schema.type",
        configSchema={"properties": {"n": {"type": "integer"}}},
        defaultConfig={"n": "1"},
    ),
    rule_case("action name", "schema.pattern", actions={"__proto__": {}}),
    rule_case("200 actions", "schema.maxProperties", actions={f"a{i}": {} for i in range(200)}),
    rule_case("for a later platform", "manifest.platform", minVersion="99.0.0"),
    rule_case("for an earlier platform", "manifest.platform", maxVersion="0.0.1"),
    rule_case("versions out of order", "manifest.version_order", minVersion="1.0.0", maxVersion="0.5.0"),
    rule_case("all the processors", "manifest.resources", resources={"cpu": "64"}),
    rule_case("a terabyte of memory", "manifest.resources", resources={"memory": "1024Gi"}),
    rule_case("memory without end", "manifest.resources", resources={"memory": "9" * 12 + "Gi"}),
    rule_case("an hour", "schema.maximum", resources={"timeoutMs": 3_600_000}),
    rule_case(
        "a permission that nobody can grant", "schema.additionalProperties", permissions={"files": ["/"]}
    ),
    *(
        rule_case(f"host {host}", "schema.pattern", permissions={"network": [host]})
        for host in (
            "*",
            "*.example.com",
            "https://example.com",
            "example.com/path",
            "user@example.com",
            "EXAMPLE.com",
            "169.254.169.254",
            "[::1]",
            "example.com:0",
            "a..b",
            "example.com.",
            "a\n",
        )
    ),
    rule_case("host port", "manifest.host", permissions={"network": ["example.com:65536"]}),
]
