"""What a plugin says of itself: manifest.json, checked whole."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chalicelib.core import errors, semver, strict_json
from chalicelib.core.errors import Violation
from chalicelib.core.json_schema import schemas
from chalicelib.core.json_schema.check import Schema, count_objects
from chalicelib.core.strict_json import escape
from chalicelib.plugins.package import entry_names
from chalicelib.plugins.package.manifest_shape import HOST, MANIFEST_SCHEMA, NAME, PLUGIN_TYPES
from chalicelib.plugins.package.manifest_values import BOUNDS, byte_count, cpu_millis, is_license

__all__ = ["HOST", "Action", "Dependency", "Manifest", "Resources", "parse_manifest", "stored_manifest"]

MAX_BYTES = 256 * 1024
MAX_SCHEMA_OBJECTS = 5_000
Runtime = Literal["wasm", "python", "none"]

_MIB = 1024**2


@dataclass(frozen=True)
class Dependency:
    """Another plugin that must be installed and enabled, unless it is optional."""

    name: str
    range: str
    optional: bool


@dataclass(frozen=True)
class Action:
    """One thing that the plugin does."""

    description: str
    params_schema: Schema | None
    returns_schema: Schema | None


@dataclass(frozen=True)
class Resources:
    """What the plugin may use: thousandths of a processor, bytes, milliseconds."""

    cpu_millis: int = 100
    memory_bytes: int = 128 * _MIB
    disk_bytes: int = 50 * _MIB
    timeout_ms: int = 10_000


@dataclass(frozen=True)
class Manifest:
    """A valid manifest. `document` is all of it, unknown members too; `warnings` are for the author."""

    name: str
    version: str
    plugin_type: str
    entry_point: str
    runtime: Runtime
    description: str
    author: str
    homepage: str
    repository: str
    documentation: str
    icon: str
    license: str
    tags: tuple[str, ...]
    dependencies: tuple[Dependency, ...]
    config_schema: Schema | None
    params_schema: Schema | None
    default_config: dict[str, Any]
    actions: dict[str, Action]
    min_version: str | None
    max_version: str | None
    resources: Resources
    network: tuple[str, ...]
    document: dict[str, Any]
    warnings: tuple[str, ...]


def parse_manifest(raw: bytes, *, files: Mapping[str, int] | None, platform_version: str) -> Manifest:
    """The manifest in `raw`, or everything that is wrong with it.

    Parameters
    ----------
    raw
        The bytes of manifest.json, at most 256 KiB.
    files
        Size in bytes of every file of the package by its name; None where only the manifest is known.
    platform_version
        The running version of Hotplug, for minVersion and maxVersion.

    Raises
    ------
    errors.Invalid
        `plugin.manifest_invalid` with rules `json.…`, `schema.…` and `manifest.…`; pointers into the
        manifest.
    """
    try:
        document = strict_json.parse(raw, max_bytes=MAX_BYTES)
    except errors.Invalid as error:
        raise _refusal(error.errors) from None
    found = schemas.violations(MANIFEST_SCHEMA, document)
    if not isinstance(document, dict):
        raise _refusal(found)
    # Parts of the wrong shape are left out of the further checks, so that the rest is still told about.
    sound = _without(document, [violation.pointer for violation in found])
    found.extend(_check_versions(sound, platform_version))
    found.extend(_check_files(sound, files))
    found.extend(_check_dependencies(sound))
    found.extend(_check_schemas(sound))
    found.extend(_check_details(sound))
    if found:
        raise _refusal(found)
    return stored_manifest(document)


def _refusal(found: tuple[Violation, ...] | list[Violation]) -> errors.Invalid:
    return errors.Invalid("The manifest is refused.", code="plugin.manifest_invalid", errors=found)


def _without(document: dict[str, Any], pointers: list[str]) -> dict[str, Any]:
    """A copy without the parts that the pointers name; items of lists become None, so the others keep their place."""
    kept = copy.deepcopy(document)
    for pointer in filter(None, pointers):
        *path, last = (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
        parent: Any = kept
        for step in path:
            # A part may already be gone with a greater one.
            parent = parent[int(step)] if isinstance(parent, list) else (parent or {}).get(step)
        if isinstance(parent, list):
            parent[int(last)] = None
        elif parent is not None:
            parent.pop(last, None)
    return kept


def _check_versions(document: dict[str, Any], platform_version: str) -> Iterator[Violation]:
    parsed = {}
    for name in ("version", "minVersion", "maxVersion"):
        try:
            if name in document:
                parsed[name] = semver.parse_version(document[name])
        except errors.Invalid as error:
            yield Violation(f"/{name}", "manifest.version", error.errors[0].message)
    least, most = parsed.get("minVersion"), parsed.get("maxVersion")
    if least and most and least > most:
        yield Violation("/maxVersion", "manifest.version_order", f"is below minVersion {least}")
        return
    platform = semver.parse_version(platform_version)
    if least and platform < least:
        yield Violation("/minVersion", "manifest.platform", f"is above the running version {platform}")
    if most and platform > most:
        yield Violation("/maxVersion", "manifest.platform", f"is below the running version {platform}")


def _check_files(document: dict[str, Any], files: Mapping[str, int] | None) -> Iterator[Violation]:
    entry_point = document.get("entryPoint")
    if entry_point is not None:
        for violation in entry_names.check_name(entry_point, ""):
            yield Violation("/entryPoint", "manifest.entry_point", violation.message)
        if entry_point.endswith("/") or entry_point in ("manifest.json", "signature.json"):
            yield Violation("/entryPoint", "manifest.entry_point", "is no file with a program")
        elif files is not None and entry_point not in files:
            yield Violation("/entryPoint", "manifest.entry_point_missing", "is not a file of the package")
    icon = document.get("icon")
    if icon is None or icon.startswith("https://"):
        return
    if ":" in icon:
        # javascript: and data: addresses would run in the page that shows the plugin.
        yield Violation("/icon", "manifest.icon", "is neither an https address nor a file of the package")
    elif files is not None and icon not in files:
        yield Violation("/icon", "manifest.icon", "is not a file of the package")


def _check_dependencies(document: dict[str, Any]) -> Iterator[Violation]:
    seen = set()
    for index, item in enumerate(document.get("dependencies", ())):
        if item is None:
            continue
        pointer = f"/dependencies/{index}"
        dependency = _dependency(item)
        if dependency is None:
            yield Violation(pointer, "manifest.dependency", "is not of the form name@range")
            continue
        try:
            semver.check_range(dependency.range)
        except errors.Invalid as error:
            yield Violation(pointer, "manifest.dependency", f"range {error.errors[0].message}")
        if dependency.name == document.get("name"):
            yield Violation(pointer, "manifest.dependency", "is the plugin itself")
        if dependency.name in seen:
            yield Violation(pointer, "manifest.dependency", f"names {dependency.name} again")
        seen.add(dependency.name)


def _dependency(item: str | dict[str, Any]) -> Dependency | None:
    if isinstance(item, dict):
        return Dependency(item["name"], item.get("range", "*"), item.get("optional", False))
    name, at, wanted = item.partition("@")
    return Dependency(name, wanted, False) if at and re.fullmatch(NAME.rstrip("$"), name) else None


def _check_schemas(document: dict[str, Any]) -> Iterator[Violation]:
    given = {f"/{name}": document[name] for name in ("configSchema", "paramsSchema") if name in document}
    for action, parts in document.get("actions", {}).items():
        for name in ("paramsSchema", "returnsSchema"):
            if name in parts:
                given[f"/actions/{escape(action)}/{name}"] = parts[name]
    if sum(map(count_objects, given.values())) > MAX_SCHEMA_OBJECTS:
        # 256 KiB of empty subschemas would keep the checker busy for half a minute.
        message = f"has schemas of more than {MAX_SCHEMA_OBJECTS} objects in all"
        yield Violation("", "manifest.schemas_too_large", message)
        return
    found = [
        violation for pointer, schema in given.items() for violation in schemas.check_schema(schema, pointer)
    ]
    yield from found
    config_schema_is_good = not any(violation.pointer.startswith("/configSchema") for violation in found)
    if "configSchema" in document and "defaultConfig" in document and config_schema_is_good:
        # A default need not be complete: `required` is what the user must still give.
        values = document["defaultConfig"]
        yield from schemas.violations(document["configSchema"], values, "/defaultConfig", partial=True)


def _check_details(document: dict[str, Any]) -> Iterator[Violation]:
    if "license" in document and not is_license(document["license"]):
        yield Violation(
            "/license", "manifest.license", "is no SPDX expression such as MIT or Apache-2.0 OR MIT"
        )
    resources = document.get("resources", {})
    for name, (least, most, text) in BOUNDS.items():
        if name in resources:
            amount = cpu_millis(resources[name]) if name == "cpu" else byte_count(resources[name])
            if amount is None or not least <= amount <= most:
                yield Violation(f"/resources/{name}", "manifest.resources", f"is no amount from {text}")
    for index, host in enumerate(document.get("permissions", {}).get("network", ())):
        name, _, port = (host or "").partition(":")
        if len(name) > 253 or int(port or 0) > 65535:
            yield Violation(f"/permissions/network/{index}", "manifest.host", "is no host or host:port")


def stored_manifest(document: dict[str, Any]) -> Manifest:
    """The manifest in a document that `parse_manifest` accepted before it was stored: nothing is checked again."""
    entry_point = document["entryPoint"]
    runtime: Runtime = "none"
    if entry_point.endswith(".wasm"):
        runtime = "wasm"
    elif entry_point.endswith(".py"):
        runtime = "python"
    return Manifest(
        name=document["name"],
        version=document["version"],
        plugin_type=PLUGIN_TYPES[document["pluginType"]],
        entry_point=entry_point,
        runtime=runtime,
        description=document.get("description", ""),
        author=document.get("author", ""),
        homepage=document.get("homepage", ""),
        repository=document.get("repository", ""),
        documentation=document.get("documentation", ""),
        icon=document.get("icon", ""),
        license=document.get("license", ""),
        tags=tuple(document.get("tags", ())),
        dependencies=tuple(
            found for item in document.get("dependencies", ()) if (found := _dependency(item))
        ),
        config_schema=document.get("configSchema"),
        params_schema=document.get("paramsSchema"),
        default_config=document.get("defaultConfig", {}),
        actions={name: _action(parts) for name, parts in document.get("actions", {}).items()},
        min_version=document.get("minVersion"),
        max_version=document.get("maxVersion"),
        resources=_resources(document.get("resources", {})),
        network=tuple(document.get("permissions", {}).get("network", ())),
        document=document,
        warnings=tuple(_warnings(document, runtime)),
    )


def _action(parts: dict[str, Any]) -> Action:
    return Action(parts.get("description", ""), parts.get("paramsSchema"), parts.get("returnsSchema"))


def _resources(document: dict[str, Any]) -> Resources:
    given = {
        "cpu_millis": cpu_millis(document["cpu"]) if "cpu" in document else None,
        "memory_bytes": byte_count(document["memory"]) if "memory" in document else None,
        "disk_bytes": byte_count(document["disk"]) if "disk" in document else None,
        "timeout_ms": document.get("timeoutMs"),
    }
    return Resources(**{name: int(value) for name, value in given.items() if value is not None})


def _warnings(document: dict[str, Any], runtime: Runtime) -> Iterator[str]:
    known = MANIFEST_SCHEMA["properties"]
    for name in list(document)[:200]:
        if name not in known:
            yield f"{name[:100]!r} is kept, but means nothing to Hotplug"
    for action, parts in document.get("actions", {}).items():
        for name in list(parts)[:20]:
            if name not in ("description", "paramsSchema", "returnsSchema"):
                yield f"{name[:100]!r} of action {action!r} is kept, but means nothing to Hotplug"
    given = document["pluginType"]
    if given != PLUGIN_TYPES[given]:
        yield f"pluginType {given!r} is an older name of {PLUGIN_TYPES[given]!r}"
    if runtime == "none":
        yield "the entry point is neither .wasm nor .py: the plugin is distributed, but never executed"
