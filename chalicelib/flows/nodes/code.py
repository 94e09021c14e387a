"""The node `code`: Python of the flow's author, run in the plugin runtime's sandbox."""

from __future__ import annotations

from chalicelib.core.errors import HotplugError
from chalicelib.core.instances import Heartbeat
from chalicelib.flows.engine.call import Call, Result
from chalicelib.flows.engine.errors import (
    CODE_FAILED,
    CODE_RESULT,
    CODE_TIME_LIMIT,
    NodeError,
)
from chalicelib.flows.nodes.outputs import misfits_of, told
from chalicelib.flows.nodes.refusals import own_words, refused
from chalicelib.plugins import code_runs
from chalicelib.plugins.services import Services

_CODES = {
    "code.result_invalid": CODE_RESULT,
    "code.result_too_large": CODE_RESULT,
    "code.timeout": CODE_TIME_LIMIT,
}
_OWN_TIME = "code.cpu_exhausted"


def execute(services: Services, heartbeat: Heartbeat, call: Call) -> Result:
    """Run `main(**inputs)` and return what it returned as outputs.

    Raises
    ------
    NodeError
        21600: the code failed, with the exception's type, message and line. 21602: what it returned is no dict, no
        JSON, or lacks or breaks a declared output. 21603: the runtime's own time limit. 22302: the node's.
    """
    timeout_ms = int(call.seconds_left() * 1000)
    source = call.node.params["code"]
    try:
        result = code_runs.run(
            services, heartbeat, call.scope.author, source, call.inputs, timeout_ms=timeout_ms
        )
    except HotplugError as error:
        raise _failure(error, call) from error
    misfits = misfits_of(result, call.node.outputs)
    if misfits:
        raise NodeError(CODE_RESULT, f"What main returned does not fit the node's outputs: {told(misfits)}.")
    return Result({one.name: result[one.name] for one in call.node.outputs})


def _failure(error: HotplugError, call: Call) -> NodeError:
    if error.code == _OWN_TIME:
        return NodeError(CODE_TIME_LIMIT, error.detail)
    code, own = _CODES.get(error.code, CODE_FAILED), own_words(error)
    return NodeError(code, own) if own else refused(error, code, call)
