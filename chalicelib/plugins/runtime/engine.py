"""The wasmtime engine: one configuration for the function that compiles and the ones that run."""

from __future__ import annotations

import hashlib
import platform
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasmtime import Engine

MAX_STACK_BYTES = 512 * 1024
"""Of a module's calls; it lies on the thread's own stack, so it must stay far below its 8 MB."""


def target() -> str:
    """Return what modules are compiled for: the baseline of this architecture, never this machine's own
    features, so that what one host compiled runs on every other."""
    return f"{platform.machine()}-unknown-linux-gnu"


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Return the engine of this process."""
    from wasmtime import Config, Engine

    config = Config()
    config.target = target()
    config.epoch_interruption = True
    config.consume_fuel = True
    config.max_wasm_stack = MAX_STACK_BYTES
    # What a command needs is MVP and what compilers emit by default; the rest is attack surface.
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_multi_memory = False
    config.wasm_relaxed_simd = False
    return Engine(config)


@lru_cache(maxsize=1)
def engine_id() -> str:
    """Return the name of what a compiled module depends on: wasmtime's version, the target and the
    configuration.

    The last part is a digest of the empty module as compiled here: wasmtime writes all its settings into it,
    so two engines of one id can load each other's modules.
    """
    from wasmtime import Module

    try:
        version = metadata.version("wasmtime")
    except metadata.PackageNotFoundError:
        version = "unversioned"  # a deployment package may leave the metadata out; the digest still tells
    module = Module(engine(), b"\0asm\x01\0\0\0")
    digest = hashlib.sha256(bytes(module.serialize())).hexdigest()
    module.close()
    return f"wasmtime-{version}-{target()}-{digest[:12]}"
