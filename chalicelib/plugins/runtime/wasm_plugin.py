"""Running a wasm plugin: a fresh store and instance for each execution, over one compiled module.

Nothing survives an execution but the module's code, so nothing of one caller can reach the next.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from chalicelib.core.errors import Invalid, Unavailable
from chalicelib.plugins.runtime.artifacts import ArtifactFolder, read_entry
from chalicelib.plugins.runtime.compile import MAX_MODULE_BYTES, compile_module
from chalicelib.plugins.runtime.engine import engine, engine_id
from chalicelib.plugins.runtime.faults import (
    Deadline,
    PluginFault,
    cpu_exhausted,
    from_error,
    out_of_memory,
    read_answer,
    timed_out,
)
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.network import Gateway
from chalicelib.plugins.runtime.request import Compiled, PluginRef, Request
from chalicelib.plugins.runtime.wasi import Call, Exit, Host

if TYPE_CHECKING:
    from wasmtime import InstancePre, Linker, Module, Trap

FUEL_PER_CPU_MS = 3_000_000
"""Wasm instructions in a millisecond of a processor of today, at most: fuel bounds the work where a clock
that stands still (a frozen environment) does not."""

TICK_S = 0.005
IDLE_S = 1.0
MAX_TABLE_ELEMENTS = 1_000_000


class WasmMachine:
    """What all wasm plugins of a process share: the engine and the functions they import."""

    def __init__(self) -> None:
        self.host = Host()
        self.clock = _Clock()
        self._linker: Linker = self.host.link(engine())

    def prepare(self, module: Module) -> InstancePre:
        return self._linker.instantiate_pre(module)


class WasmPlugin:
    """One loaded module."""

    def __init__(self, machine: WasmMachine, module: Module, plugin: PluginRef) -> None:
        self._machine = machine
        self._module = module
        self._plugin = plugin
        self._prepared = machine.prepare(module)

    def smoke(self, deadline: Deadline) -> None:
        """Instantiate once, which is all the initialisation that a command has."""
        self._run(Call(b"", deadline, Gateway(None, (), deadline), Log()), 1_000, start=False)

    def execute(self, request: Request, gateway: Gateway, deadline: Deadline, log: Log) -> Any:
        """Return the module's result; what it wrote to stderr goes to `log`."""
        message = {
            "action": request.action,
            "params": request.params,
            "config": request.config,
            "context": dict(request.context),
        }
        call = Call(json.dumps(message, ensure_ascii=False).encode("utf-8"), deadline, gateway, log)
        code = self._run(call, self._plugin.resources.cpu_budget_ms(request.timeout_ms), start=True)
        if code and not call.stdout:
            raise PluginFault(
                "plugin", "plugin.exit", f"The plugin exited with code {code} and wrote no answer."
            )
        return read_answer(bytes(call.stdout))

    def close(self) -> None:
        """Give the code back."""
        self._prepared.close()
        self._module.close()

    def _run(self, call: Call, budget_ms: int, *, start: bool) -> int:
        from wasmtime import Func, Memory, Store, Trap, WasmtimeError

        store = Store(engine())
        limit = self._plugin.resources.memory_bytes
        store.set_limits(limit, MAX_TABLE_ELEMENTS, 1, 10, 1)
        store.set_fuel(budget_ms * FUEL_PER_CPU_MS)
        store.set_epoch_deadline(1)
        self._machine.host.call = call
        size = 0
        try:
            with self._machine.clock.watching(call.deadline):
                exports = self._prepared.instantiate(store).exports(store)
                memory, function = exports.get("memory"), exports["_start"]
                try:
                    if start and isinstance(function, Func):
                        function(store)
                finally:
                    size = memory.data_len(store) if isinstance(memory, Memory) else 0
        except Exit as exit_call:
            return exit_call.code
        except Trap as trap:
            _raise_trap(trap, size, limit)
        except WasmtimeError as error:
            raise _refusal(error, limit) from error
        finally:
            self._machine.host.call = None
            store.close()
        return 0


class _Clock:
    """Advances the engine's epoch, which ends the running module, when a deadline passes.

    One thread that looks every TICK_S while something runs and sleeps otherwise: a thread for each execution
    would cost more than most executions.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ends: float | None = None
        self._running = False

    @contextlib.contextmanager
    def watching(self, deadline: Deadline) -> Iterator[None]:
        """End what runs in this block at the deadline; never what runs after it."""
        with self._changed:
            self._ends = deadline.ends
            if not self._running:
                self._running = True
                threading.Thread(target=self._tick, name="hotplug-epoch", daemon=True).start()
        try:
            yield
        finally:
            with self._changed:
                self._ends = None

    def _tick(self) -> None:
        idle_since = time.monotonic()
        while True:
            with self._changed:
                now = time.monotonic()
                if self._ends is not None:
                    idle_since = now
                    if now >= self._ends:
                        self._ends = None
                        engine().increment_epoch()
                elif now - idle_since > IDLE_S:
                    self._running = False
                    return
            time.sleep(TICK_S)


def load_module(request: Request, folder: ArtifactFolder, deadline: Deadline) -> Module:
    """Return the compiled module of a plugin: as registered where the engine is the same, else compiled
    afresh.

    Raises
    ------
    PluginFault
        Of kind `load`.
    """
    from wasmtime import Module, WasmtimeError

    plugin = request.plugin
    name = f"{plugin.plugin_id}_{plugin.version}"
    archive = folder.fetch(f"{name}.zip", request.artifact, deadline)
    try:
        if request.compiled is not None and request.compiled.engine == engine_id():
            return _registered(request.compiled, folder, f"{name}.cwasm", deadline)
        wasm = archive.with_name(f"{name}.wasm")
        fresh = archive.with_name(f"{name}.fresh.cwasm")
        try:
            wasm.write_bytes(read_entry(archive, plugin.entry_point, MAX_MODULE_BYTES))
            compile_module(wasm, fresh, seconds=max(0.1, deadline.left()))
            return Module.deserialize_file(engine(), str(fresh))
        finally:
            wasm.unlink(missing_ok=True)
            fresh.unlink(missing_ok=True)
    except (Invalid, Unavailable) as error:
        raise from_error(error, "load") from error
    except WasmtimeError as error:
        raise PluginFault("load", "plugin.wasm_invalid", str(error)) from error


def _registered(compiled: Compiled, folder: ArtifactFolder, name: str, deadline: Deadline) -> Module:
    from wasmtime import Module

    # Native code that nothing vouches for but its checksum, which the caller took from its own database.
    path: Path = folder.fetch(name, compiled.source, deadline)
    return Module.deserialize_file(engine(), str(path))


def _raise_trap(trap: Trap, size: int, limit: int) -> NoReturn:
    from wasmtime import TrapCode

    code = trap.trap_code
    if code is TrapCode.INTERRUPT:
        raise timed_out() from trap
    if code is TrapCode.OUT_OF_FUEL:
        raise cpu_exhausted() from trap
    if code is TrapCode.STACK_OVERFLOW:
        raise PluginFault(
            "plugin", "plugin.stack_overflow", "The plugin's call stack is exhausted."
        ) from trap
    # A module learns of a refused memory.grow alone, and gives up with `unreachable`: what it had tells why.
    if code in (TrapCode.UNREACHABLE, TrapCode.MEMORY_OUT_OF_BOUNDS) and size > limit * 3 // 4:
        raise out_of_memory(limit) from trap
    reason = code.name.lower().replace("_", " ") if code else trap.message
    raise PluginFault("plugin", "plugin.trap", f"The plugin trapped: {reason}.") from trap


def _refusal(error: Exception, limit: int) -> PluginFault:
    if "memory" in str(error) and "limit" in str(error):
        return out_of_memory(limit)
    return PluginFault("load", "plugin.wasm_invalid", f"The module cannot be instantiated: {error}")
