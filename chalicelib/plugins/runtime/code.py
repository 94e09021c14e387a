"""Running a flow's code: `main(**inputs)` of a source, in a locked-in child process of its own for each run.

The child is the one of the python plugins, with the same walls; what is not the same is that it is never used twice. A
plugin belongs to its author, who knows that it keeps its state. The code of a flow runs on behalf of whoever runs the
flow: what one end user's inputs left in a module must not be there for the next.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.plugins.runtime.channel import ChildEnded
from chalicelib.plugins.runtime.faults import (
    MAX_RESULT_BYTES,
    ONE_MIB,
    Deadline,
    PluginFault,
    check_travels,
    plugin_error,
    while_loading,
)
from chalicelib.plugins.runtime.locked_child import LockedChild, Sandbox
from chalicelib.plugins.runtime.log import Log
from chalicelib.plugins.runtime.request import (
    DEFAULT_TIMEOUT_MS,
    MAX_TIMEOUT_MS,
    CacheState,
    parse_cache,
    parsed,
)

OPERATION = "code"
MAX_SOURCE_BYTES = ONE_MIB
DEFAULT_MEMORY_BYTES, MAX_MEMORY_BYTES = 256 * ONE_MIB, 512 * ONE_MIB
DEFAULT_CPU_MS = 10_000
DEFAULT_OUTPUT_BYTES = ONE_MIB
START_MS = 3_000
"""For the child to start and to lock itself in, before the code's own time begins."""


@dataclass(frozen=True)
class CodeRequest:
    """One run.

    Parameters
    ----------
    inputs
        The keyword arguments of `main`.
    memory_bytes
        Above what the interpreter itself needs.
    cpu_ms, timeout_ms
        Milliseconds of processor time, and by the clock.
    output_bytes
        Of the result as JSON.
    """

    source: str
    inputs: Mapping[str, Any]
    memory_bytes: int
    cpu_ms: int
    output_bytes: int
    timeout_ms: int
    cache: CacheState | None


def parse_code_request(event: Mapping[str, Any]) -> CodeRequest:
    """Return the request in an event.

    Raises
    ------
    errors.BadRequest
        `runtime.bad_event`, naming what is missing or wrong.
    """
    return parsed(_parse, event)


def run_code(request: CodeRequest, sandbox: Sandbox, log: Log, figures: dict[str, Any]) -> dict[str, Any]:
    """Return what `main` returned.

    Parameters
    ----------
    log
        Takes what the code writes to stdout and stderr.
    figures
        `loadMs` and `durationMs` are set in it.

    Raises
    ------
    PluginFault
        `code.failed` with the exception's type, message and line; `code.crashed`, `code.out_of_memory`,
        `code.timeout`, `code.cpu_exhausted`, `code.result_invalid`, `code.result_too_large`; of kind `load`,
        `refused` or `internal` where it never ran.
    """
    started = time.perf_counter()
    child = LockedChild()
    try:
        _start(child, request, sandbox, log)
        figures["loadMs"], started = _since(started), time.perf_counter()
        try:
            return _run(child, request, log)
        finally:
            figures["durationMs"] = _since(started)
    finally:
        child.end()


def _start(child: LockedChild, request: CodeRequest, sandbox: Sandbox, log: Log) -> None:
    deadline = Deadline.after(START_MS)
    try:
        setup = child.setup(sandbox, request.memory_bytes, entryPoint=None, config=None)
        child.channel.send(setup, deadline, log)
        answer = child.channel.receive(deadline, log)
    except ChildEnded:
        raise child.crash("load") from None
    except PluginFault as fault:
        raise while_loading(fault) from fault
    if "error" in answer:  # no code of a stranger has run yet
        raise PluginFault("refused", "plugin.sandbox_unavailable", plugin_error(answer["error"]).detail)


def _run(child: LockedChild, request: CodeRequest, log: Log) -> dict[str, Any]:
    deadline = Deadline.after(request.timeout_ms)
    message = {"source": request.source, "inputs": dict(request.inputs), "maxBytes": request.output_bytes}
    child.watch(request.cpu_ms)
    try:
        try:
            child.channel.send(message, deadline, log)
        except UnicodeEncodeError:
            raise PluginFault(
                "plugin", "code.failed", "An input holds half a character (a lone surrogate)."
            ) from None
        answer = child.channel.receive(deadline, log)
        if "error" in answer:
            raise _told(answer["error"])
        result = answer.get("result")
        if not isinstance(result, dict):
            raise PluginFault("output", "code.result_invalid", "The code answered with no dict.")
        if child.channel.frame_bytes > request.output_bytes:
            raise _too_large(request)  # the child has looked at this, but the code can write to its pipe
        check_travels(result, child.channel.frame_bytes)
        return result
    except ChildEnded:
        raise _as_code(child.crash("plugin"), request) from None
    except PluginFault as fault:
        raise _as_code(fault, request) from fault


def _told(error: Any) -> PluginFault:
    """Return the fault that came over the pipe. The code may have written it: of what is not its own error only the
    kind is taken."""
    kind = error.get("kind") if isinstance(error, dict) else ""
    own = plugin_error(error)
    if kind == "memory":
        return PluginFault("memory", "code.out_of_memory", own.detail)
    if kind == "output":
        code = "code.result_too_large" if own.code == "code.result_too_large" else "code.result_invalid"
        return PluginFault("output", code, own.detail)
    return PluginFault("plugin", "code.failed", own.detail)


def _as_code(fault: PluginFault, request: CodeRequest) -> PluginFault:
    """Return a fault in the words of whoever wrote the code."""
    if fault.code == "plugin.cpu_exhausted":
        spent = f"The code used up its {request.cpu_ms / 1000:g} s of processor time."
        return PluginFault("timeout", "code.cpu_exhausted", spent)
    if fault.kind == "timeout":
        late = f"The code took longer than {request.timeout_ms / 1000:g} s."
        return PluginFault("timeout", "code.timeout", late)
    if fault.kind == "memory":
        needs = f"The code needs more than its {request.memory_bytes // ONE_MIB} MiB of memory."
        return PluginFault("memory", "code.out_of_memory", needs)
    if fault.code in ("plugin.result_too_large", "code.result_too_large"):
        return _too_large(request)
    if fault.code == "plugin.bad_output":
        detail = fault.detail.replace("The plugin's answer", "What main returned")
        return PluginFault("output", "code.result_invalid", detail)
    if fault.code == "plugin.crashed":
        return PluginFault("plugin", "code.crashed", fault.detail.replace("plugin's", "code's"))
    return fault


def _too_large(request: CodeRequest) -> PluginFault:
    large = f"The result takes more than {request.output_bytes} bytes as JSON."
    return PluginFault("output", "code.result_too_large", large)


def _parse(event: Mapping[str, Any]) -> CodeRequest:
    asked = event["code"]
    source, inputs = asked["source"], asked["inputs"]
    if not isinstance(source, str) or not isinstance(inputs, dict):
        raise TypeError("the source is a text, and the inputs are an object")
    if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE_BYTES:
        raise ValueError(f"the source takes more than {MAX_SOURCE_BYTES} bytes")
    return CodeRequest(
        source=source,
        inputs=inputs,
        memory_bytes=min(int(asked.get("memoryBytes") or DEFAULT_MEMORY_BYTES), MAX_MEMORY_BYTES),
        cpu_ms=min(max(int(asked.get("cpuMs") or DEFAULT_CPU_MS), 1), MAX_TIMEOUT_MS),
        output_bytes=min(int(asked.get("outputBytes") or DEFAULT_OUTPUT_BYTES), MAX_RESULT_BYTES),
        timeout_ms=min(max(int(event.get("timeoutMs") or DEFAULT_TIMEOUT_MS), 1), MAX_TIMEOUT_MS),
        cache=parse_cache(event["cache"]) if event.get("cache") else None,
    )


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
