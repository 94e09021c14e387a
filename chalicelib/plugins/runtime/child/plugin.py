"""A python plugin: loaded once, executed turn by turn, with `context.http` as its only way out."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from chalicelib.plugins.runtime.child import frames

CO_COROUTINE = 0x80  # `inspect` has it, and costs more to import than all that is here


class HttpError(Exception):
    """A request that was refused or failed; `code` tells why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Http:
    """`context.http`: the runtime makes the request, to granted hosts only."""

    def __init__(self, pipe: frames.Pipe) -> None:
        self._pipe = pipe
        self.lock = threading.Lock()
        self.turn: str | None = None  # of the execution that is going on

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        timeout_ms: int | None = None,
    ) -> dict[str, Any]:
        """Return `{status, headers, body (text), content (bytes)}`; raises HttpError."""
        content = body.encode() if isinstance(body, str) else body
        message = {
            "method": method,
            "url": url,
            "headers": dict(headers or {}),
            "bodyBase64": None if content is None else base64.b64encode(content).decode(),
            "timeoutMs": timeout_ms,
        }
        with self.lock:
            # A thread that outlives its execution would read the frames of the next one.
            if self.turn is None:
                raise HttpError("http.closed", "context.http works during execute() only")
            frame = json.dumps({"turn": self.turn, "http": message}).encode()
            if len(frame) > frames.MAX_RESULT_BYTES:
                raise HttpError("http.request_too_large", "the request is too large")
            self._pipe.send(frame)
            answer = self._pipe.receive()
        if "error" in answer:
            raise HttpError(answer["error"]["code"], answer["error"]["message"])
        received = base64.b64decode(answer["bodyBase64"])
        return {
            "status": answer["status"],
            "headers": answer["headers"],
            "body": received.decode("utf-8", "replace"),
            "content": received,
        }


class Context(dict[str, Any]):
    """What `execute` is given besides its parameters: `context["requestId"]`, `context.http`."""

    def __init__(self, values: Mapping[str, Any], http: Http) -> None:
        super().__init__(values)
        self.http = http


def load(folder: str, entry_point: str, config: Any) -> Any:
    """Return the plugin's object, initialised; raises what the plugin raises."""
    sys.path.insert(0, folder)
    path = os.path.join(folder, entry_point)
    spec = importlib.util.spec_from_file_location("hotplug_plugin", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{entry_point} is not a python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["hotplug_plugin"] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "Plugin"):
        raise TypeError(f"{entry_point} has no class Plugin")
    plugin = module.Plugin()
    if not callable(getattr(plugin, "execute", None)):
        raise TypeError("Plugin has no method execute(action, params, context)")
    if getattr(getattr(plugin.execute, "__code__", None), "co_flags", 0) & CO_COROUTINE:
        raise TypeError("Plugin.execute is async: nothing would await it")
    if hasattr(plugin, "init"):
        plugin.init(config)
    return plugin


def answer(plugin: Any, frame: dict[str, Any], http: Http, folder: str) -> bytes:
    """Return the frame that answers one execution."""
    turn = frame["turn"]
    http.turn = turn
    try:
        result = plugin.execute(frame["action"], frame["params"], Context(frame["context"], http))
        done = encoded({"turn": turn, "result": result})
        if len(done) > frames.MAX_RESULT_BYTES:
            return frames.error("output", "plugin.result_too_large", "The result is too large.", turn=turn)
        return done
    except MemoryError:
        return frames.error("memory", "plugin.out_of_memory", "The plugin ran out of memory.", turn=turn)
    except BaseException as raised:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        report(raised, folder)
        code, data = getattr(raised, "code", None), getattr(raised, "data", None)
        name = "plugin.recursion" if isinstance(raised, RecursionError) else "plugin.exception"
        message = f"{type(raised).__name__}: {raised}"
        return frames.error("plugin", code if isinstance(code, str) else name, message, data, turn=turn)
    finally:
        with http.lock:  # waits for a thread's request that is on its way
            http.turn = None
        frames.flush()


def encoded(frame: dict[str, Any]) -> bytes:
    """Return a frame with a result as JSON; what the plugin's author reads says that the result is at fault."""
    try:
        return json.dumps(frame, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"execute returned no JSON: {error}") from None


def clean_up(plugin: Any, folder: str) -> None:
    """Let the plugin end what it began."""
    try:
        if hasattr(plugin, "cleanup"):
            plugin.cleanup()
    except BaseException as error:  # noqa: BLE001 - the process ends either way
        report(error, folder)


def report(error: BaseException, folder: str) -> None:
    """Write the plugin's part of a traceback to its log."""
    try:
        entries = traceback.extract_tb(error.__traceback__)
        own = [entry for entry in entries if entry.filename.startswith(folder)]
        lines = [*traceback.format_list(own[-50:]), *traceback.format_exception_only(error)]
        sys.stderr.write("".join(lines).replace(f"{folder}/", ""))
    except Exception:  # noqa: BLE001, S110 - a hostile __str__, a closed stream
        pass
