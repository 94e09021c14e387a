"""Running a wasm plugin in the runtime function: what is added to the module's own work, and the first call."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

from bench.clock import interleaved, seconds
from bench.figure import Figure, added, plain
from chalicelib.plugins.runtime.engine import engine
from chalicelib.plugins.runtime.service import Runtime
from examples.build import PLUGINS, compile_zig
from tests.unit.plugins.runtime.support import ECHO_WAT, Bench, ObjectServer, wasm

AREA = "execute"
ROUNDS, TIMES = 40, 20
COLD_ROUNDS = 30
MODULE_BYTES = 300_000
MESSAGE = {"action": "count", "params": {"text": "one two three\nfour " * 20}, "config": {}, "context": {}}
# Straight code and a branch, in a proportion that makes machine code a few times as large as the module, as it
# is for the example plugin; enough of such functions make a module of the size wanted.
STEP = (
    "(local.set 0 (i32.xor (i32.mul (local.get 0) (i32.const {0})) (i32.shr_u (local.get 1) (local.get 0))))"
)
PADDING = (
    "(func (param i32 i32) (result i32)"
    + STEP * 16
    + "(if (i32.lt_u (local.get 0) (i32.const {0})) (then (i32.store (i32.const 64) (local.get 1))))"
    + "(local.get 0))"
)


def measure() -> list[Figure]:
    """Return the figures of this area."""
    server = ObjectServer()
    try:
        with tempfile.TemporaryDirectory(prefix="hotplug-bench-") as folder:
            figures = _warm(server, Path(folder)) + _cold(server, Path(folder))
    finally:
        server.close()
    return figures


def _warm(server: ObjectServer, folder: Path) -> list[Figure]:
    module = compile_zig(PLUGINS / "word-count" / "1.0.0" / "main.zig")
    runtime = Runtime(folder / "warm")
    bench = Bench(runtime, server, folder)
    event = bench.event({"main.wasm": module}, "main.wasm", "wasm", **MESSAGE)
    try:
        run = _answered(runtime, event)
        alone = _alone(module, folder)
        readings = interleaved(
            {"ours": lambda: seconds(run, TIMES), "alone": lambda: mean(alone() for _ in range(TIMES))},
            ROUNDS,
        )
    finally:
        runtime.close()
    return [
        added(
            "warm execution, above the module's own work",
            AREA, readings["ours"], readings["alone"], "ms", 1, scale=1000,
        )
    ]  # fmt: skip


def _alone(module: bytes, folder: Path) -> Callable[[], float]:
    """Return what times the module by itself: instantiated and run on the same engine with wasmtime's own WASI, whose
    set-up is not counted."""
    from wasmtime import ExitTrap, Linker, Module, Store, WasiConfig

    linker = Linker(engine())
    linker.define_wasi()
    prepared = linker.instantiate_pre(Module(engine(), module))
    asked, told = folder / "stdin", folder / "stdout"
    asked.write_text(json.dumps(MESSAGE))

    def run() -> float:
        store = Store(engine())
        store.set_fuel(10**12)
        store.set_epoch_deadline(1)
        wasi = WasiConfig()
        wasi.stdin_file, wasi.stdout_file = str(asked), str(told)
        store.set_wasi(wasi)
        began = perf_counter()
        try:
            prepared.instantiate(store).exports(store)["_start"](store)  # type: ignore[operator]
        except ExitTrap:
            # A command may end by returning or by proc_exit(0); its answer tells whether it did its work.
            pass
        elapsed = perf_counter() - began
        store.close()
        if "result" not in json.loads(told.read_bytes()):
            raise RuntimeError(f"the module answered {told.read_text()}")
        return elapsed

    return run


def _cold(server: ObjectServer, folder: Path) -> list[Figure]:
    """One runtime that has unloaded the plugin before each call; it keeps the engine, as an environment does."""
    event = _large(server, folder)
    runtime = Runtime(folder / "cold")

    def kept() -> float:
        runtime.close()
        return seconds(_answered(runtime, event, cold=True))

    def far() -> float:
        shutil.rmtree(folder / "cold")
        return kept()

    kept()
    try:
        readings = interleaved({"kept": kept, "far": far}, COLD_ROUNDS)
    finally:
        runtime.close()
    name = f"first call after a cold load of a compiled {MODULE_BYTES // 1000} KB module"
    return [
        plain(f"{name}, from /tmp", AREA, median(readings["kept"]) * 1000, "ms", 5),
        plain(f"{name}, fetched over loopback HTTP", AREA, median(readings["far"]) * 1000, "ms"),
    ]


def _large(server: ObjectServer, folder: Path) -> dict[str, Any]:
    """Return the event of a module of MODULE_BYTES, compiled as registration stores it."""
    each = len(wasm("(module (memory 1)" + PADDING.format(70_000) * 101 + ")")) - len(
        wasm("(module (memory 1)" + PADDING.format(70_000) + ")")
    )
    count = MODULE_BYTES * 100 // each
    body = "".join(PADDING.format(70_000 + number) for number in range(count))
    source = ECHO_WAT.rstrip().removesuffix(")") + body + ")"
    bench = Bench(Runtime(folder / "unused"), server, folder)
    event = bench.wasm_event(source, params=MESSAGE["params"])
    return bench.compiled(event, source)


def _answered(runtime: Runtime, event: dict[str, Any], *, cold: bool = False) -> Callable[[], object]:
    """Return what runs `event` once and refuses to time a failure, or a load where none was meant."""

    def run() -> object:
        answer = runtime.handle(event)
        if not answer["ok"] or (cold and not answer["coldLoad"]):
            raise RuntimeError(f"the runtime answered {answer}")
        return answer

    return run
