"""What operators see: JSON log lines with stable names, the phases of operations, and EMF metrics.

powertools' Logger and Metrics do the writing; both are imported on first use (50 ms together), so that a
warm answer that has nothing to say pays nothing. Nothing here raises into the code that calls it: a request
must not fail because of its own description.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from itertools import pairwise
from typing import Any

from chalicelib.core.errors import HotplugError

NAMESPACE = "Hotplug"
SERVICE = "hotplug"
REDACTED = "[redacted]"
# Metrics wait for the end of the invocation; an event that handles very many records writes them earlier.
MAX_PENDING_METRICS = 1_000
MAX_TEXT = 2_048
MAX_ITEMS = 50
MAX_DEPTH = 4
MAX_FRAMES = 30

# A field whose name has a word that ends so (`apisecret`) is never written ...
_SECRET_WORDS = ("secret", "token", "password", "authorization", "apikey", "credentials")
# ... and one whose name ends in one of these holds what a tenant sent or stored (`configId` does not).
_PAYLOAD_WORDS = frozenset({"params", "config", "body", "payload"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Attributes of a LogRecord: logging raises KeyError for an extra field of the same name.
_TAKEN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_bound: ContextVar[Mapping[str, Any] | None] = ContextVar("hotplug_bound", default=None)
_current: ContextVar[Operation | None] = ContextVar("hotplug_operation", default=None)
_metrics: list[tuple[str, float, str]] = []
# Threads of one invocation may add values meanwhile; an append needs no lock.
_emitting = threading.Lock()
_logger: Any = None
_cold = True


def bind(**fields: Any) -> None:
    """Put these fields (`request_id`, `app`, `function`) on every further line until `flush`."""
    _bound.set({**(_bound.get() or {}), **fields})


def event(name: str, /, **fields: Any) -> None:
    """Write one line with the stable name `plugin.installed`; fields are redacted by their names."""
    _write(logging.INFO, name, fields)


def exception(name: str, error: BaseException, /, *, level: int = logging.ERROR, **fields: Any) -> None:
    """Write one line with the error's type and where it came from: at ERROR, which rings an alarm where there are many,
    unless the fault is somebody else's.

    The text of an unexpected error is left out: a driver puts the statement's values into it, a parser a
    piece of the payload. Ours (`HotplugError`) is written for the reader and holds neither.
    """
    _write(level, name, {**fields, **_described(error), "stack": _frames(error)})


def metric(name: str, value: float, unit: str = "Count") -> None:
    """Add one value to the EMF line of this invocation.

    Parameters
    ----------
    unit
        A CloudWatch unit: Count, Milliseconds, Bytes, Percent.
    """
    _metrics.append((name, value, unit))
    if len(_metrics) >= MAX_PENDING_METRICS:
        _emit_metrics()


def is_cold_start() -> bool:
    """Return whether this process has not finished an invocation yet."""
    return _cold


def flush() -> None:
    """End an invocation: write its metrics, forget what was bound to it; the process is warm from here."""
    global _cold
    _emit_metrics()
    _bound.set(None)
    _cold = False


class Operation:
    """One operation while it runs. `phase` times a part of it, `note` adds a field to its line."""

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields
        self.phases: dict[str, float] = {}
        self._began = time.perf_counter()
        self._step: tuple[str, float] | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time inside to `{name}Ms` of the line, also when it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, began)

    def note(self, **fields: Any) -> None:
        """Add fields that are only known on the way (`version`, `bytes`)."""
        self.fields.update(fields)

    def reach(self, step: str) -> None:
        """End the phase of the step before and begin that of `step`."""
        self.end_step()
        self._step = (step, time.perf_counter())
        self.fields["step"] = step

    def end_step(self) -> None:
        if self._step is not None:
            self._add(*self._step)
            self._step = None

    def line(self) -> dict[str, Any]:
        """Return the fields of the line: what was given and noted, the phases, the whole, in milliseconds."""
        phases = {f"{name}Ms": round(spent, 3) for name, spent in self.phases.items()}
        return {**self.fields, **phases, "durationMs": round(_ms_since(self._began), 3)}

    def _add(self, name: str, began: float) -> None:
        self.phases[name] = self.phases.get(name, 0.0) + _ms_since(began)


@contextmanager
def operation(name: str, /, **fields: Any) -> Iterator[Operation]:
    """Write one line when the block ends: its fields, phases, duration and outcome, and the error's code.

    Example
    -------
    >>> with operation("plugin.install", plugin_id="plugin_x_1") as op:
    ...     with op.phase("store"):
    ...         pass
    """
    running = Operation(name, dict(fields))
    before = _current.get()
    _current.set(running)
    outcome: dict[str, Any] = {"outcome": "success"}
    try:
        yield running
    except BaseException as error:
        outcome = {"outcome": "error", **_described(error)}
        raise
    finally:
        _current.set(before)
        running.end_step()
        level = logging.INFO if outcome["outcome"] == "success" else logging.WARNING
        _write(level, name, {**running.line(), **outcome})


def on_step(_operation: str, step: str) -> None:
    """Observer for `steps.observe`: each step of the running operation becomes a phase of its line."""
    running = _current.get()
    if running is not None:
        running.reach(step)


def redact(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be logged: secrets and payloads replaced by their names, the rest bounded in size."""
    return {
        str(name): _shown(str(name), value, MAX_DEPTH) for name, value in list(fields.items())[:MAX_ITEMS]
    }


def _shown(name: str, value: Any, depth: int) -> Any:
    if is_sensitive(name):
        return REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
    if isinstance(value, datetime | date):
        return value.isoformat()
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {str(k): _shown(str(k), v, depth - 1) for k, v in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown("", item, depth - 1) for item in list(value)[:MAX_ITEMS]]
    # The repr of an object shows its fields, and nobody looked at their names.
    return f"<{type(value).__name__}>"


def is_sensitive(name: str) -> bool:
    """Return whether a field of this name (`apiSecret`, `x-api-key`, `params`) must not be written."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words:
        return False
    pairs = [first + second for first, second in pairwise(words)]
    return any(word.endswith(_SECRET_WORDS) for word in words + pairs) or words[-1] in _PAYLOAD_WORDS


def _described(error: BaseException) -> dict[str, Any]:
    if isinstance(error, HotplugError):
        return {"code": error.code, "errorType": type(error).__name__, "detail": error.detail}
    return {"code": "internal", "errorType": type(error).__name__}


def _frames(error: BaseException) -> list[str]:
    found: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(found) < MAX_FRAMES:
        found.append(type(seen).__name__)
        frames = traceback.extract_tb(seen.__traceback__)[-MAX_FRAMES:]
        found += [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        seen = seen.__cause__ or seen.__context__
    return found[:MAX_FRAMES]


def _ms_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _write(level: int, name: str, fields: Mapping[str, Any]) -> None:
    try:
        line = redact({**(_bound.get() or {}), "coldStart": _cold, **fields})
        extra = {f"{key}_" if key in _TAKEN else key: value for key, value in line.items()}
        _the_logger().log(level, name, extra=extra)
    except Exception as error:  # noqa: BLE001 - a log line that cannot be written must not fail the request
        line = {"level": "ERROR", "message": "telemetry.failed", "errorType": type(error).__name__}
        sys.stdout.write(json.dumps(line) + "\n")


class _Stdout(logging.StreamHandler[Any]):
    """Writes to the standard output of the moment: a runtime may replace it after the logger was made."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


def _the_logger() -> Any:
    global _logger
    if _logger is None:
        from aws_lambda_powertools import Logger

        _logger = Logger(
            service=SERVICE,
            level=os.environ.get("HOTPLUG_LOG_LEVEL", "INFO").upper(),
            logger_handler=_Stdout(),
            utc=True,
            use_rfc3339=True,
            log_record_order=["level", "message", "timestamp"],
            # It would always name this module.
            location=None,
        )
    return _logger


def _emit_metrics() -> None:
    if not _metrics:
        return
    with _emitting:
        pending = _metrics[:]
        del _metrics[: len(pending)]
    try:
        from aws_lambda_powertools.metrics import Metrics

        emf = Metrics(namespace=NAMESPACE, service=SERVICE)
        for name, value, unit in pending:
            _add_metric(emf, name, value, unit)
        if emf.metric_set:
            emf.add_metadata(key="coldStart", value=_cold)
            emf.flush_metrics()
    except Exception as error:  # noqa: BLE001 - metrics that cannot be written must not fail the request
        _write(logging.ERROR, "telemetry.metrics_failed", {"errorType": type(error).__name__})


def _add_metric(emf: Any, name: str, value: float, unit: str) -> None:
    try:
        emf.add_metric(name=name, unit=unit, value=value)
    except Exception as error:  # noqa: BLE001 - one wrong unit must not lose the other metrics
        _write(logging.ERROR, "telemetry.metric_refused", {"metric": name, "errorType": type(error).__name__})
