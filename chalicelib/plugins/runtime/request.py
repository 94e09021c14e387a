"""What one invocation of a runtime function asks for. The caller is our own API function; a mistake is still
named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from chalicelib.core.errors import BadRequest
from chalicelib.plugins.runtime.faults import ONE_MIB

T = TypeVar("T")

# They become file names: nothing that could leave the cache folder gets that far.
_PLUGIN_ID = re.compile(r"[a-z0-9_-]{1,128}")
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

DEFAULT_MEMORY_BYTES = 128 * ONE_MIB
DEFAULT_CPU_MILLIS = 100
MAX_TIMEOUT_MS = 25_000
DEFAULT_TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Resources:
    """Limits of one plugin.

    `cpu_millis` is the share of one processor, in thousandths, that an execution may use on average over its
    timeout; `memory_bytes` is above what the runtime itself needs.
    """

    cpu_millis: int
    memory_bytes: int

    def cpu_budget_ms(self, timeout_ms: int) -> int:
        """Return the processor time of one execution; never below a second, so a small share may still
        burst."""
        return max(1_000, timeout_ms * self.cpu_millis // 1_000)


@dataclass(frozen=True)
class PluginRef:
    """Which bytes to run, and how."""

    plugin_id: str
    version: str
    checksum: str
    runtime: str
    entry_point: str
    resources: Resources
    network: tuple[str, ...]

    def as_dict(self) -> dict[str, str]:
        return {"pluginId": self.plugin_id, "version": self.version, "checksum": self.checksum}


@dataclass(frozen=True)
class Source:
    """An object to fetch: a presigned URL, its exact size and SHA-256."""

    url: str
    size_bytes: int
    checksum: str


@dataclass(frozen=True)
class Compiled:
    """A module compiled at registration, and for which engine."""

    source: Source
    engine: str


@dataclass(frozen=True)
class CacheState:
    """The version of scope `plugins` at the caller, and the changes that led to it."""

    version: int
    epoch: str
    changes: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Request:
    operation: str
    plugin: PluginRef
    artifact: Source
    compiled: Compiled | None
    action: str
    params: Any
    config: Any
    context: Mapping[str, Any]
    timeout_ms: int
    load_timeout_ms: int
    cache: CacheState | None


def parse_request(event: Mapping[str, Any]) -> Request:
    """Return the request in an event.

    Raises
    ------
    errors.BadRequest
        `runtime.bad_event`, naming what is missing or wrong.
    """
    return parsed(_parse, event)


def parsed(parse: Callable[[Mapping[str, Any]], T], event: Mapping[str, Any]) -> T:
    """Return what `parse` reads out of an event, whatever it stumbles over being the event's fault.

    Raises
    ------
    errors.BadRequest
        `runtime.bad_event`
    """
    try:
        return parse(event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRequest(f"The invocation is malformed: {error!r}", code="runtime.bad_event") from error


def _parse(event: Mapping[str, Any]) -> Request:
    operation = _one_of(event.get("operation", "execute"), "operation", ("execute", "load"))
    plugin = _plugin(event["plugin"])
    artifact, compiled = event["artifact"], event.get("compiled")
    timeout_ms = int(event.get("timeoutMs") or DEFAULT_TIMEOUT_MS)
    return Request(
        operation=operation,
        plugin=plugin,
        artifact=Source(_url(artifact["url"]), int(artifact["sizeBytes"]), plugin.checksum),
        compiled=_compiled(compiled) if compiled else None,
        action=str(event.get("action") or ""),
        params=event.get("params"),
        config=event.get("config"),
        context=dict(event.get("context") or {}),
        timeout_ms=min(max(timeout_ms, 1), MAX_TIMEOUT_MS),
        load_timeout_ms=min(max(int(event.get("loadTimeoutMs") or 20_000), 1), MAX_TIMEOUT_MS),
        cache=parse_cache(event["cache"]) if event.get("cache") else None,
    )


def _plugin(plugin: Mapping[str, Any]) -> PluginRef:
    resources = plugin.get("resources") or {}
    return PluginRef(
        plugin_id=_matching(_PLUGIN_ID, plugin["pluginId"], "pluginId"),
        version=_matching(_VERSION, plugin["version"], "version"),
        checksum=_matching(_SHA256, plugin["checksum"], "checksum"),
        runtime=_one_of(plugin["runtime"], "runtime", ("wasm", "python")),
        entry_point=str(plugin["entryPoint"]),
        resources=Resources(
            cpu_millis=int(resources.get("cpuMillis") or DEFAULT_CPU_MILLIS),
            memory_bytes=int(resources.get("memoryBytes") or DEFAULT_MEMORY_BYTES),
        ),
        network=tuple(str(host) for host in plugin.get("network") or ()),
    )


def _compiled(compiled: Mapping[str, Any]) -> Compiled:
    checksum = _matching(_SHA256, compiled["checksum"], "compiled.checksum")
    return Compiled(
        Source(_url(compiled["url"]), int(compiled["sizeBytes"]), checksum), str(compiled["engine"])
    )


def parse_cache(cache: Mapping[str, Any]) -> CacheState:
    """Return the caller's state of scope `plugins`."""
    changes = tuple((int(version), str(key)) for version, key in cache.get("changes") or ())
    return CacheState(int(cache["version"]), str(cache.get("epoch") or ""), changes)


def _url(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise ValueError("a url must be http or https")
    return value


def _matching(pattern: re.Pattern[str], value: Any, name: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{name} is malformed")
    return value


def _one_of(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}")
    return str(value)
