"""A flow's code: a source whose function `main` is called once with its inputs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from chalicelib.plugins.runtime.child import frames

CODE_FILE = "<code>"
CODE_MODULE = "flow_code"  # not __main__: what a file does when it is run as a script is not done


def run(frame: dict[str, Any], paths: set[str]) -> bytes:
    """Run `main` of a source with its inputs, and return the answer.

    Parameters
    ----------
    paths
        Where this machine keeps its interpreter: left out of messages.
    """
    try:
        try:
            result = _main_of(frame["source"])(**frame["inputs"])
        except MemoryError:
            return frames.error("memory", "code.out_of_memory", "The code ran out of memory.")
        except BaseException as error:  # noqa: BLE001 - strangers' code may raise anything, SystemExit too
            return frames.error("plugin", "code.failed", _told(error, paths))
        if not isinstance(result, dict):
            return frames.error(
                "output", "code.result_invalid", f"main returned {type(result).__name__}, no dict."
            )
        try:
            answer = json.dumps({"result": result}, ensure_ascii=False, allow_nan=False).encode()
        except MemoryError:
            return frames.error("memory", "code.out_of_memory", "The code ran out of memory.")
        except BaseException as error:  # noqa: BLE001 - a subclass of dict has methods of its own
            return frames.error(
                "output", "code.result_invalid", f"What main returned is no JSON: {_told(error, paths)}"
            )
        if len(answer) > frame["maxBytes"]:
            return frames.error("output", "code.result_too_large", "The result is too large.")
        return answer
    finally:
        frames.flush()


def _main_of(source: str) -> Callable[..., Any]:
    # Not with our own `from __future__`.
    compiled = compile(source, CODE_FILE, "exec", dont_inherit=True)
    module = ModuleType(CODE_MODULE)
    sys.modules[CODE_MODULE] = module  # dataclasses look their module up
    exec(compiled, module.__dict__)  # noqa: S102 - that is what this process is for
    main: Callable[..., Any] | None = getattr(module, "main", None)
    if not callable(main):
        raise NameError("The code defines no function main.")
    return main


def _told(error: BaseException, paths: set[str]) -> str:
    """Return an exception's type, its message, and the line of the code that it came from."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == CODE_FILE else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == CODE_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:  # noqa: BLE001 - a hostile __str__
        text = ""
    place = "" if line is None else f" (line {line})"
    kept = frames.MAX_MESSAGE - len(place)
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, "…")
    return f"{type(error).__name__}: {text}".removesuffix(": ")[:kept] + place


def interpreter_paths() -> set[str]:
    """Return where this machine keeps its interpreter; before `lock_in` changes how it is reached."""
    places = {*sys.path, sys.prefix, sys.base_prefix, os.path.dirname(sys.executable)}
    return {path for path in places if path.count("/") > 1}
