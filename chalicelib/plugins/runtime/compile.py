"""Compiling a stranger's wasm module, in a child process that may fail.

200,000 tiny functions take wasmtime 20 s and 1.2 GB: the compiler runs where it can be killed, and its
memory comes back with it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.core.errors import Invalid, Unavailable, Violation
from chalicelib.plugins.runtime.engine import engine, engine_id
from chalicelib.plugins.runtime.signatures import HOTPLUG, SIGNATURES, WASI

if TYPE_CHECKING:
    from wasmtime import FuncType, ImportType, Module

MAX_MODULE_BYTES = 8 * 1024 * 1024
MAX_COMPILED_BYTES = 256 * 1024 * 1024
DEFAULT_MEMORY_BYTES = 1536 * 1024 * 1024
DEFAULT_SECONDS = 60
POINTER = "/entryPoint"

_MAGIC = b"\0asm\x01\0\0\0"
_REFUSED = 3
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from chalicelib.plugins.runtime.compile import run_child; run_child(*sys.argv[2:])"
)

__all__ = ["compile_module", "engine_id", "run_child"]


def compile_module(
    wasm: Path, output: Path, *, seconds: float = DEFAULT_SECONDS, memory_bytes: int = DEFAULT_MEMORY_BYTES
) -> None:
    """Write the compiled module of `wasm` to `output`, for the engine that `engine_id()` names.

    Parameters
    ----------
    wasm
        A WASI preview 1 command, at most MAX_MODULE_BYTES long.
    output
        Created or replaced; absent where this raises.
    seconds, memory_bytes
        Limits of the child: wall clock, and address space.

    Raises
    ------
    errors.Invalid
        `plugin.wasm_invalid` with every reason; `plugin.wasm_too_complex` where a limit was hit.
    errors.Unavailable
        `plugin.compiler_failed`: the compiler could not be started, which is not the module's fault.
    """
    _check_size(wasm)
    output.unlink(missing_ok=True)
    arguments = [str(wasm), str(output), str(max(1, int(seconds))), str(memory_bytes)]
    command = [
        sys.executable,
        "-I",
        "-S",
        "-B",
        "-c",
        _BOOT,
        json.dumps([*sys.path, os.getcwd()]),
        *arguments,
    ]
    try:
        # No environment: should a module take the compiler over, it finds no credential.
        done = subprocess.run(  # noqa: S603 - our own interpreter, paths as arguments
            command, capture_output=True, timeout=seconds, env=_environment(), check=False
        )
    except subprocess.TimeoutExpired as error:
        output.unlink(missing_ok=True)
        raise _too_complex(f"compiling takes longer than {seconds:g} s") from error
    if done.returncode == 0 and output.is_file():
        return
    output.unlink(missing_ok=True)
    if done.returncode == _REFUSED:
        raise _invalid([Violation(**violation) for violation in json.loads(done.stdout)])
    if done.returncode < 0 or b"MemoryError" in done.stderr or b"memory" in done.stderr:
        raise _too_complex(
            f"compiling needs more than {memory_bytes} bytes of memory, or too much processor time"
        )
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    raise Unavailable(
        f"The compiler ended with {done.returncode}: {''.join(last)}", code="plugin.compiler_failed"
    )


def run_child(wasm: str, output: str, seconds: str, memory_bytes: str) -> None:
    """Compile under limits; the body of the child process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_COMPILED_BYTES, MAX_COMPILED_BYTES))
    # Wall clock is the parent's affair; this ends a compiler whose parent died.
    budget = int(seconds) * (os.cpu_count() or 1) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (budget, budget))
    violations = _compile(Path(wasm).read_bytes(), Path(output))
    if violations:
        sys.stdout.write(json.dumps([violation.as_dict() for violation in violations]))
        sys.exit(_REFUSED)


def _compile(wasm: bytes, output: Path) -> list[Violation]:
    from wasmtime import Module, WasmtimeError

    if not wasm.startswith(_MAGIC):
        return [Violation(POINTER, "wasm.syntax", "is not a WebAssembly 1.0 module")]
    try:
        module = Module(engine(), wasm)
    except WasmtimeError as error:
        return [Violation(POINTER, "wasm.syntax", str(error)[:500])]
    violations = _violations(module)
    if not violations:
        output.write_bytes(module.serialize())
    return violations


def _violations(module: Module) -> list[Violation]:
    from wasmtime import FuncType

    found = [
        Violation(POINTER, "wasm.import", reason) for entry in module.imports if (reason := _refused(entry))
    ]
    start = next((export.type for export in module.exports if export.name == "_start"), None)
    if not isinstance(start, FuncType) or start.params or start.results:
        found.append(
            Violation(POINTER, "wasm.start_missing", "exports no function `_start` without parameters")
        )
    return found


def _refused(entry: ImportType) -> str | None:
    from wasmtime import FuncType

    name = f"{entry.module}.{entry.name}"
    if entry.module not in (WASI, HOTPLUG):
        return f"imports {name[:200]}; only {WASI} and {HOTPLUG} are provided"
    signature = SIGNATURES.get((entry.module, entry.name or ""))
    if signature is None:
        return f"imports {name[:200]}, which {entry.module} does not have"
    if not isinstance(entry.type, FuncType) or _spelled(entry.type) != signature:
        return f"imports {name} with another type"
    return None


def _spelled(kind: FuncType) -> str:
    letters = {"i32": "i", "i64": "l"}
    parameters, results = (
        "".join(letters.get(str(value), "?") for value in side) for side in (kind.params, kind.results)
    )
    return f"{parameters}:{results}"


def _check_size(wasm: Path) -> None:
    size = wasm.stat().st_size
    if size > MAX_MODULE_BYTES:
        raise _invalid(
            [Violation(POINTER, "wasm.size", f"has {size} bytes; at most {MAX_MODULE_BYTES} are allowed")]
        )


def _environment() -> dict[str, str]:
    # Lambda's interpreter finds its own libraries by it.
    return {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if os.environ.get("LD_LIBRARY_PATH") else {}


def _invalid(violations: list[Violation]) -> Invalid:
    return Invalid("The module is not a plugin.", code="plugin.wasm_invalid", errors=violations)


def _too_complex(why: str) -> Invalid:
    violation = Violation(POINTER, "wasm.too_complex", why)
    return Invalid(
        "The module is too complex to compile.", code="plugin.wasm_too_complex", errors=[violation]
    )
