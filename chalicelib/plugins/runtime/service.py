"""The runtime function: loads plugins, keeps them warm, runs them, and drops them when they changed."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from chalicelib.core import strict_json
from chalicelib.core.errors import BadRequest
from chalicelib.plugins.runtime import code, process
from chalicelib.plugins.runtime.artifacts import DEFAULT_BUDGET_BYTES, ArtifactFolder
from chalicelib.plugins.runtime.faults import Deadline, PluginFault, while_loading
from chalicelib.plugins.runtime.locked_child import Sandbox, remove_stale_folders
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.network import Fetcher, Gateway, OutboundFetcher
from chalicelib.plugins.runtime.python_plugin import PythonPlugin
from chalicelib.plugins.runtime.request import CacheState, PluginRef, Request, parse_request
from chalicelib.plugins.runtime.wasm_plugin import WasmMachine, WasmPlugin, load_module

DEFAULT_INSTANCES = 16
EVERYTHING = "*"

_log = logging.getLogger(__name__)

Key = tuple[
    str, str, str, str
]  # plugin id, version, checksum, and for python the digest of its configuration


class Instance(Protocol):
    """A loaded plugin."""

    def execute(self, request: Request, gateway: Gateway, deadline: Deadline, log: Log) -> Any: ...

    def close(self) -> None: ...


class Runtime:
    """One execution environment.

    Parameters
    ----------
    cache_folder
        For downloaded artifacts.
    network
        Whether plugins may use `context.http` at all.
    disk_budget_bytes
        Of the cache folder.
    max_instances
        Loaded plugins at a time; the least recently used goes first.
    sandbox
        Of python plugins.
    fetcher
        Makes the requests of plugins; `core/outbound` where none is given.
    """

    def __init__(
        self,
        cache_folder: Path,
        *,
        network: bool = False,
        disk_budget_bytes: int = DEFAULT_BUDGET_BYTES,
        max_instances: int = DEFAULT_INSTANCES,
        sandbox: Sandbox | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.instance_id = uuid4().hex
        self._folder = ArtifactFolder(cache_folder, disk_budget_bytes)
        self._network = network
        self._max_instances = max_instances
        self._sandbox = sandbox or Sandbox()
        self._fetcher = fetcher
        self._machine: WasmMachine | None = None
        self._loaded: OrderedDict[Key, tuple[PluginRef, Instance]] = OrderedDict()
        self._known: tuple[int, str] | None = None
        self._lock = threading.Lock()
        remove_stale_folders()

    def handle(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one invocation; a failure is an answer too, never an exception."""
        log, figures = Log(), {"durationMs": 0.0, "coldLoad": False, "loadMs": 0.0}
        with self._lock:
            try:
                outcome = {"ok": True, "result": self._answer(event, log, figures)}
            except PluginFault as fault:
                outcome = {"ok": False, "error": fault.as_dict()}
            except BadRequest as error:
                outcome = {"ok": False, "error": PluginFault("internal", error.code, error.detail).as_dict()}
            except Exception as error:  # noqa: BLE001 - the edge: the next invocation must find us
                _log.exception("runtime.failed")
                failure = PluginFault(
                    "internal", "runtime.failed", f"The runtime failed: {type(error).__name__}."
                )
                outcome = {"ok": False, "error": failure.as_dict()}
            return {**outcome, "logs": log.text(), **figures, **self._state()}

    def close(self) -> None:
        """Unload everything."""
        with self._lock:
            self._drop(list(self._loaded))

    def _answer(self, event: Mapping[str, Any], log: Log, figures: dict[str, Any]) -> Any:
        if event.get("operation") == code.OPERATION:
            asked = code.parse_code_request(event)
            self._refresh(asked.cache)
            return code.run_code(asked, self._sandbox, log, figures)
        request = parse_request(event)
        self._refresh(request.cache)
        return self._perform(request, log, figures)

    def _perform(self, request: Request, log: Log, figures: dict[str, Any]) -> Any:
        started = time.perf_counter()
        instance, cold = self._instance(request, log)
        if cold:
            figures["coldLoad"], figures["loadMs"] = True, _since(started)
        if request.operation == "load":
            return None
        started = time.perf_counter()
        deadline = Deadline.after(request.timeout_ms)
        gateway = Gateway(self._requester(request), request.plugin.network, deadline)
        try:
            return instance.execute(request, gateway, deadline, log)
        finally:
            figures["durationMs"] = _since(started)

    def _instance(self, request: Request, log: Log) -> tuple[Instance, bool]:
        plugin = request.plugin
        config = ""
        if plugin.runtime == "python":  # init() has seen it
            config = hashlib.sha256(strict_json.canonical(request.config)).hexdigest()
        key = (plugin.plugin_id, plugin.version, plugin.checksum, config)
        found = self._loaded.get(key)
        if found is not None and (not isinstance(found[1], PythonPlugin) or found[1].alive):
            self._loaded.move_to_end(key)
            return found[1], False
        self._drop([key] if found else [])
        instance = self._load(request, log)
        # The new version stands; only now do the others go.
        self._drop([other for other in self._loaded if other[0] == key[0] and other[:3] != key[:3]])
        self._loaded[key] = (plugin, instance)
        self._drop(list(self._loaded)[: max(0, len(self._loaded) - self._max_instances)])
        return instance, True

    def _load(self, request: Request, log: Log) -> Instance:
        plugin, deadline = request.plugin, Deadline.after(request.load_timeout_ms)
        _log.info("plugin.reloaded", extra={"pluginId": plugin.plugin_id, "version": plugin.version})
        if plugin.runtime == "python":
            archive = self._folder.fetch(
                f"{plugin.plugin_id}_{plugin.version}.zip", request.artifact, deadline
            )
            return PythonPlugin(plugin, archive, request.config, self._sandbox, deadline, log)
        module = load_module(request, self._folder, deadline)
        if self._machine is None:
            self._machine = WasmMachine()
        loaded = WasmPlugin(self._machine, module, plugin)
        try:
            loaded.smoke(deadline)
        except PluginFault as fault:
            loaded.close()
            raise while_loading(fault) from fault
        return loaded

    def _requester(self, request: Request) -> Fetcher | None:
        if not self._network or not request.plugin.network:
            return None
        if self._fetcher is None:
            self._fetcher = OutboundFetcher()
        return self._fetcher

    def _refresh(self, cache: CacheState | None) -> None:
        """Drop what changed since the version that this environment knew; everything where it cannot tell."""
        if cache is None:
            return
        known, self._known = self._known, (cache.version, cache.epoch)
        if known is None or known == self._known:
            return
        version, epoch = known
        if epoch == cache.epoch and cache.version < version:
            # Several functions invoke at once and this one was overtaken. Nothing that is loaded is wrong for it, and
            # what it loads may be over already: going back makes the next invocation drop it.
            return
        missed = {key for number, key in cache.changes if number > version}
        newest = max((number for number, _ in cache.changes), default=version)
        oldest = min((number for number, _ in cache.changes), default=cache.version + 1)
        complete = epoch == cache.epoch and cache.version <= newest and oldest <= version + 1
        if not complete or EVERYTHING in missed:
            self._drop(list(self._loaded))
        else:
            self._drop([key for key in self._loaded if key[0] in missed])

    def _drop(self, keys: list[Key]) -> None:
        for key in keys:
            plugin, instance = self._loaded.pop(key)
            instance.close()
            _log.info("plugin.unloaded", extra={"pluginId": plugin.plugin_id, "version": plugin.version})
        if keys:
            _give_back()

    def _state(self) -> dict[str, Any]:
        pids = [pid for _, instance in self._loaded.values() if (pid := getattr(instance, "pid", None))]
        return {
            "memoryBytes": process.resident_bytes([os.getpid(), *pids]),
            "instanceId": self.instance_id,
            "scopeVersion": self._known[0] if self._known else None,
            "loaded": [plugin.as_dict() for plugin, _ in self._loaded.values()],
        }


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """Return this process's runtime, made from its environment on first use."""
    default = os.path.join(tempfile.gettempdir(), "hotplug")
    return Runtime(
        Path(os.environ.get("HOTPLUG_LOCAL_CACHE_DIR") or default),
        network=os.environ.get("HOTPLUG_RUNTIME_NETWORK") == "1",
        sandbox=Sandbox.from_environment(os.environ),
    )


def handle(event: Mapping[str, Any]) -> dict[str, Any]:
    """Handle one invocation of a runtime function; see `Runtime.handle`."""
    return runtime().handle(event)


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _give_back() -> None:
    """Return freed memory to the system: glibc keeps it otherwise, and the environment is billed for it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
