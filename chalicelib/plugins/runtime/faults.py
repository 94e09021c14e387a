"""How an execution ends other than with a result, and the clock it runs against."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from chalicelib.core import strict_json
from chalicelib.core.answers import MAX_ANSWER_BYTES, wire_bytes
from chalicelib.core.errors import HotplugError, Invalid, UpstreamFailed

ONE_MIB = 1024 * 1024

MAX_RESULT_BYTES = 5 * ONE_MIB
"""Of a result as JSON: Lambda's own limit for an answer is 6 MB, and logs and figures travel with it."""

MAX_LOG_BYTES = 64 * 1024
MAX_MESSAGE_LENGTH = 2_000
MAX_CODE_LENGTH = 100
MAX_DATA_BYTES = 64 * 1024
MAX_DEPTH = 64

Kind = Literal["plugin", "timeout", "memory", "output", "load", "refused", "internal"]


class PluginFault(UpstreamFailed):
    """An execution that ended without a result.

    Parameters
    ----------
    kind
        Whose fault and of what sort: `plugin` is the plugin's own error; `timeout`, `memory` and `output` are
        limits; `load` means that it never ran; `refused` that it was not allowed to.
    code
        Stable slug; for `plugin` it may be the plugin's own.
    message
        For people.
    data
        JSON that the plugin added.
    """

    def __init__(self, kind: Kind, code: str, message: str, data: Any = None) -> None:
        super().__init__(message[:MAX_MESSAGE_LENGTH], code=code[:MAX_CODE_LENGTH])
        self.kind = kind
        self.data = data

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "code": self.code, "message": self.detail, "data": self.data}


@dataclass(frozen=True)
class Deadline:
    """A moment of `time.monotonic()`; every wait of an execution is cut at it."""

    ends: float

    @classmethod
    def after(cls, milliseconds: float) -> Deadline:
        return cls(time.monotonic() + milliseconds / 1000)

    def left(self) -> float:
        """Return the seconds that are left, never below zero."""
        return max(0.0, self.ends - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.ends


def timed_out() -> PluginFault:
    return PluginFault("timeout", "plugin.timeout", "The plugin did not answer within its time limit.")


def result_too_large() -> PluginFault:
    return PluginFault(
        "output", "plugin.result_too_large", f"The result is larger than {MAX_RESULT_BYTES} bytes."
    )


def cpu_exhausted() -> PluginFault:
    detail = "The plugin used up its processor time: resources.cpu × its timeout."
    return PluginFault("timeout", "plugin.cpu_exhausted", detail)


def out_of_memory(limit: int) -> PluginFault:
    return PluginFault(
        "memory", "plugin.out_of_memory", f"The plugin needs more than its {limit} bytes of memory."
    )


def load_timeout() -> PluginFault:
    return PluginFault("load", "plugin.load_timeout", "The plugin was not loaded within the load timeout.")


def while_loading(fault: PluginFault) -> PluginFault:
    """Return a fault as it looks from outside when it happened before anything was executed."""
    return load_timeout() if fault.kind == "timeout" else fault


def read_answer(raw: bytes) -> Any:
    """Return the result in a plugin's answer.

    Parameters
    ----------
    raw
        What the plugin wrote: one JSON object with either `result` or `error`.

    Raises
    ------
    PluginFault
        Its `error`; or `plugin.bad_output` where the answer is not such an object, `plugin.result_too_large`.
    """
    answer = read_object(raw)
    if "error" in answer:
        raise plugin_error(answer["error"])
    if "result" not in answer:
        raise _bad_output("has neither `result` nor `error`")
    # The envelope is `{"result":…}`: the answer is at most a few bytes larger than the result, blanks aside.
    if len(raw) > MAX_RESULT_BYTES and len(strict_json.canonical(answer["result"])) > MAX_RESULT_BYTES:
        raise result_too_large()
    check_travels(answer["result"], len(raw))
    return answer["result"]


def check_travels(result: Any, size: int) -> None:
    """Refuse a result that the functions between here and the caller could not carry.

    Parameters
    ----------
    size
        Bytes that it came as; they at most triple on the way, so a small one is not looked at.

    Raises
    ------
    PluginFault
        `plugin.result_too_large`. Without it the run is stored as a success whose answer nobody gets.
    """
    if size * 3 <= MAX_ANSWER_BYTES:
        return
    if wire_bytes(result) > MAX_ANSWER_BYTES:
        raise result_too_large()


def read_object(raw: bytes) -> dict[str, Any]:
    """Return the one JSON object in what a plugin wrote; the plugin may be hostile."""
    try:
        value = strict_json.parse(
            raw.strip(b" \t\r\n"), max_bytes=MAX_RESULT_BYTES + ONE_MIB, max_depth=MAX_DEPTH
        )
    except Invalid as error:
        first = error.errors[0]
        at = f" at {first.pointer}" if first.pointer else ""
        raise _bad_output(f"is no JSON: {first.message}{at}" if raw else "is empty") from error
    if not isinstance(value, dict):
        raise _bad_output("is not an object")
    return value


def plugin_error(error: Any) -> PluginFault:
    """Return the fault for the `error` member of a plugin's answer, cut to size."""
    if not isinstance(error, dict):
        return PluginFault("plugin", "plugin.error", str(error))
    data = error.get("data")
    if data is not None and len(strict_json.canonical(data)) > MAX_DATA_BYTES:
        data = None
    return PluginFault("plugin", _code(error.get("code")), _text(error.get("message"), ""), data)


def from_error(error: HotplugError, kind: Kind) -> PluginFault:
    """Return a refusal of another part of the service as a fault, its reasons in `data`."""
    reasons = [violation.as_dict() for violation in error.errors] or None
    return PluginFault(kind, error.code, error.detail, reasons)


def _bad_output(why: str) -> PluginFault:
    return PluginFault("plugin", "plugin.bad_output", f"The plugin's answer {why}.")


def _text(value: Any, default: str) -> str:
    return value if isinstance(value, str) and value else default


def _code(value: Any) -> str:
    # It is kept, counted and shown in lists: a line break or an escape sequence has no place there.
    return value if isinstance(value, str) and value and value.isprintable() else "plugin.error"
